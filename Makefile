# make test and make demo need Python >= 3.11, make and a package index; they set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help test fix demo clean
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.ready: pyproject.toml deploy/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[dev]'
	@touch $@

test: $(VENV)/.ready ## format, lint, strict types, import contracts, tests: everything fast
	$(BIN)/ruff format --check router tests
	$(BIN)/ruff check router tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not real"

fix: $(VENV)/.ready ## format and mend what ruff can
	$(BIN)/ruff format router tests
	$(BIN)/ruff check --fix router tests

demo: $(VENV)/.ready ## three simulated backends, the router, traffic
	$(BIN)/router demo

clean: ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
