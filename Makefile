# make test and make demo need Python >= 3.11, make and a package index; they set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKED := router tests deploy/compile.py
COMPILED := build/compiled

.PHONY: help test compiled test-compiled fix docs demo real bench bench-peers flame fuzz chaos soak ui-test prometheus-test routing-study routing-study-live sim-validate quality-study clean
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{sub(/:.*/, "", $$1); printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.ready: pyproject.toml deploy/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[dev]'
	@touch $@

test: $(VENV)/.ready ## format, lint, strict types, import contracts, tests: everything fast
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -m "not live and not real and not slow" -n auto $(COVERAGE)
	$(BIN)/pytest -m "live and not slow" $(if $(COVERAGE),$(COVERAGE) --cov-append)

$(COMPILED)/.ready: $(VENV)/.ready deploy/compile.py $(shell find router -name '*.py')
	$(BIN)/python deploy/compile.py
	@touch $@

compiled: $(COMPILED)/.ready ## experimental: a call's way compiled by mypyc: a wheel in build/dist, a copy to run in build/compiled (2 minutes, gcc)

test-compiled: compiled ## the tests again, on the compiled router
	@rm -rf $(COMPILED)/tests && cp -r tests $(COMPILED)/tests
	cd $(COMPILED) && PYTHONPATH=$(CURDIR)/$(COMPILED) $(CURDIR)/$(BIN)/python -m pytest -m "not real and not slow" \
	    -p no:cacheprovider --ignore=tests/docs $(ARGS)

fix: $(VENV)/.ready ## format and mend what ruff can
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

docs: $(VENV)/.ready ## write docs/reference.md and docs/errors.md anew from the code
	$(BIN)/python -m tests.docs.generate

demo: $(VENV)/.ready ## three simulated backends, the router, traffic
	$(BIN)/router demo

real: $(VENV)/.ready ## the contract tests on two real vLLM servers (x86-64; 4 GB in .real/, about 8 minutes)
	$(BIN)/pytest tests/real -m real -rsfE --tb=short --durations=5 $(ARGS)

bench: $(VENV)/.ready ## what the router adds to a call, a first token and a chunk, beside nginx and its peers
	@command -v gcc >/dev/null || { echo "make bench needs gcc: deploy/debian.sh bench"; exit 1; }
	$(BIN)/python -m tests.bench $(ARGS)

flame: $(VENV)/.ready ## where the router's CPU time goes: .bench/flame-*.svg (ARGS="plain paced256 fast")
	$(BIN)/python -m tests.bench.flame $(ARGS)

PEERS ?= vllm-router==0.1.17
bench-peers: ## install peers for make bench (PEERS="vllm-router==0.1.17 sglang-router==0.3.2 litellm[proxy]")
	@for peer in $(PEERS); do \
	    name=$${peer%%[=[]*}; echo "$$peer into .bench/peers/$$name"; \
	    $(PYTHON) -m venv .bench/peers/$$name && .bench/peers/$$name/bin/pip install --quiet "$$peer" || exit 1; \
	done

ui-test: $(VENV)/.ready ## the dashboard in a real Chromium (apt-get install chromium chromium-driver)
	@$(BIN)/python -c 'import selenium' 2>/dev/null || $(BIN)/pip install --quiet -c deploy/constraints.txt -e '.[dev,ui]'
	$(BIN)/pytest tests/ui -rs $(ARGS)

prometheus-test: $(VENV)/.ready ## every panel and alert asked of a real Prometheus (apt-get install prometheus)
	$(BIN)/pytest tests/live/test_prometheus.py -rs $(ARGS)

quality-study: $(VENV)/.ready ## tables and a plot of how well damage is told from rounding
	$(BIN)/python -m tests.study.quality_study docs/img/detection-delay.svg

routing-study: $(VENV)/.ready ## every policy beside an oracle on replayed traces (10 minutes or more; ARGS=--quick)
	$(BIN)/python -m tests.study.routing_study $(ARGS)

routing-study-live: $(VENV)/.ready ## the same through HTTP: simulated servers and a router a policy (12 minutes; ARGS="--rounds 4")
	$(BIN)/python -m tests.study.live $(ARGS)

sim-validate: $(VENV)/.ready ## the simulator's predictions beside a real vLLM on CPU (x86-64; .real/; up to 5 minutes)
	$(BIN)/python -m tests.study.validate $(ARGS)

fuzz: $(VENV)/.ready ## random heads, bodies, chunks, edits and streams with new seeds (MINUTES=5 ARGS="--seed 7")
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),5) $(ARGS)

chaos: $(VENV)/.ready ## 500 faults under load, and what every client saw (about 3 minutes; ARGS="--seed 7")
	$(BIN)/python -m tests.chaos $(ARGS)

soak: $(VENV)/.ready ## the same for long: memory, files and loop lag stay flat (MINUTES=20)
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),20) $(ARGS)

clean: ## remove what make made, except .real/ and .bench/ (they take minutes to make again)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build *.egg-info
