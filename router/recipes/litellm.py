"""Read a LiteLLM `config.yaml` into a fleet file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from router.recipes.imports import Imported, named, opened, rest, secret, url_of

SELF_HOSTED = {  # LiteLLM's provider: what is behind it, None where only an address tells
    "hosted_vllm": "vllm",
    "vllm": "vllm",
    "openai": "openai",
    "text-completion-openai": "openai",
    "custom_openai": "openai",
    "openai_like": "openai",
    "ollama": "openai",
    "ollama_chat": "openai",
    "llamafile": "openai",
    "lm_studio": "openai",
    "litellm_proxy": "openai",
    "xinference": "openai",
    "infinity": "openai",
}
STRATEGIES = {
    "least-busy": "least-in-flight",
    "latency-based-routing": "predictive",
    "simple-shuffle": "predictive",
}
SHORTEST_KEY = 20  # characters; below it a hash is no secret
PARAMS = frozenset({"model", "api_base", "base_url", "api_key", "max_parallel_requests", "custom_llm_provider"})
WHY = {
    "rpm": "no rate limits: a backend is full when it says so, see max_in_flight",
    "tpm": "no rate limits: a backend is full when it says so, see max_in_flight",
    "timeout": "no total timeout on an answer that makes progress; see timeouts in the fleet file",
    "stream_timeout": "no total timeout on an answer that makes progress; see timeouts in the fleet file",
    "request_timeout": "no total timeout on an answer that makes progress; see timeouts in the fleet file",
    "model_info": "the router reads from each server what its models can do",
    "weight": "the share of each backend follows from its measured speed",
    "order": "the order follows from measured speed; an alias may list models in order",
    "temperature": "calls pass unchanged",
    "max_tokens": "calls pass unchanged",
    "drop_params": "calls pass unchanged",
    "input_cost_per_token": "no prices",
    "output_cost_per_token": "no prices",
    "success_callback": "no callbacks: there are metrics, log lines and notify",
    "failure_callback": "no callbacks: there are metrics, log lines and notify",
    "callbacks": "no callbacks: there are metrics, log lines and notify",
    "cache": "answers are not cached",
    "cache_params": "answers are not cached",
    "database_url": "no data base: history is a file of the router's own",
    "context_window_fallbacks": "a call that is too long for one backend is tried on one that can, by itself",
    "environment_variables": "set them where the router starts",
    "redis_host": "one process, no shared state",
    "redis_port": "one process, no shared state",
    "redis_password": "one process, no shared state",
}


def from_litellm(text: str, source: str) -> Imported:
    """Read a LiteLLM config.

    Raises:
        FleetFault: it is none.
    """
    raw = opened(text, source, "model_list")
    out = Imported(source)
    backends, aliases = model_list(raw["model_list"], out)
    router, settings, general = (section(raw, name, out) for name in ("router_settings", *SETTINGS))
    groups = mapping(router.get("model_group_alias"))
    aliases |= {name: [target_of(target)] for name, target in groups.items()}
    for where, part in (("router_settings", router), ("litellm_settings", settings)):
        fallbacks(part.get("fallbacks"), f"{where}.fallbacks", aliases, out)
    out.raw["backends"] = named(list(backends.values()))
    out.raw |= routing(router, settings, out)
    served = {model for one in out.raw["backends"] for model in one.get("serves", ())}
    for hidden in sorted(served & aliases.keys()):
        out.leave(f"model_group_alias.{hidden}", "is the name of a served model, which an alias would hide")
    kept = {name: targets for name, targets in aliases.items() if name not in served}
    if kept:
        out.raw["aliases"] = {name: targets[0] if len(targets) == 1 else targets for name, targets in kept.items()}
    access(general, out)
    rest(raw, "", WHY, out, frozenset({"model_list", "router_settings", *SETTINGS}))
    return out


SETTINGS = ("litellm_settings", "general_settings")


def mapping(value: object) -> dict[str, Any]:
    """Return a section, empty where there is none."""
    return value if isinstance(value, dict) else {}


def section(raw: Mapping[str, Any], name: str, out: Imported) -> dict[str, Any]:
    """Return a section of the file; one that holds something else is reported, not passed over in silence."""
    value = raw.get(name)
    if value is not None and not isinstance(value, dict):
        out.leave(name, f"is no mapping ({type(value).__name__}): nothing was read from it")
    return mapping(value)


def target_of(value: object) -> str:
    """Return what an alias of LiteLLM stands for."""
    return str(value.get("model")) if isinstance(value, dict) else str(value)


def model_list(entries: object, out: Imported) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Read the list of models: one backend for each address, an alias where clients use another name."""
    backends: dict[str, dict[str, Any]] = {}
    aliases: dict[str, list[str]] = {}
    for i, entry in enumerate(entries if isinstance(entries, list) else []):
        path = f"model_list[{i}]"
        if not isinstance(entry, dict):
            out.leave(path, f"is no mapping ({type(entry).__name__}): a model needs model_name and litellm_params")
            continue
        params = mapping(entry.get("litellm_params"))
        provider, _, model = str(params.get("model", "")).partition("/")
        provider = str(params.get("custom_llm_provider") or provider)
        url = url_of(params.get("api_base") or params.get("base_url"))
        reason = not_ours(provider, model, params, url)
        if reason or url is None:
            out.leave(path, f"{entry.get('model_name', 'a model')}: {reason}")
            continue
        backend = backends.setdefault(url, {"url": url, "serves": []})
        add(backend, model, provider, params, out)
        name = str(entry.get("model_name", model))
        if name != model and model not in aliases.setdefault(name, []):
            aliases[name].append(model)
        rest(params, f"{path}.litellm_params", WHY, out, PARAMS)
        rest(entry, path, WHY, out, frozenset({"model_name", "litellm_params"}))
    return backends, aliases


def not_ours(provider: str, model: str, params: Mapping[str, Any], url: str | None) -> str:
    """Say why an entry is no backend of a fleet, "" where it is one."""
    base = params.get("api_base") or params.get("base_url")
    if "*" in model or "*" in provider:
        return "stands for any model: name the servers, their models are found"
    if provider not in SELF_HOSTED:
        return f"{provider or 'without a provider'}: only servers of your own that speak OpenAI's API are routed to"
    if base is None:
        return "has no api_base: a cloud service, not a server of your own"
    if url is None:
        return f"its api_base ({base if '@' not in str(base) else 'with a password'}) is not a server's root"
    return ""


def add(backend: dict[str, Any], model: str, provider: str, params: Mapping[str, Any], out: Imported) -> None:
    """Add a model to the backend at its address."""
    if model not in backend["serves"]:
        backend["serves"].append(model)
    if SELF_HOSTED[provider] == "openai" and "kind" not in backend:
        backend["kind"] = "openai"
        out.to_do.append(f"{backend['url']}: if this is a vLLM, take out `kind: openai`, and more is measured")
    elif SELF_HOSTED[provider] == "vllm":
        backend.pop("kind", None)
    key = None if "api_key" in backend else secret(params.get("api_key"), backend["url"].split("//")[-1], out)
    if key is not None:
        backend["api_key"] = key
    most = params.get("max_parallel_requests")
    if isinstance(most, int) and most > 0:
        backend["max_in_flight"] = backend.get("max_in_flight", 0) + most


def fallbacks(value: object, path: str, aliases: dict[str, list[str]], out: Imported) -> None:
    """Read fallbacks: an alias with several models in order means nearly the same."""
    for one in value if isinstance(value, list) else []:
        for name, others in mapping(one).items():
            if name not in aliases:
                out.leave(path, f"{name} is served under its own name; give clients an alias that lists it first")
                continue
            more = map(str, others) if isinstance(others, list) else ()
            aliases[name] += [other for other in more if other not in aliases[name]]
            out.to_do.append(f"{name} now means the first of {', '.join(aliases[name])} that is serving")


def routing(router: Mapping[str, Any], settings: Mapping[str, Any], out: Imported) -> dict[str, Any]:
    """Read how a server is chosen and when another is tried."""
    raw: dict[str, Any] = {}
    strategy = router.get("routing_strategy")
    if strategy in STRATEGIES:
        raw["routing"] = {"policy": STRATEGIES[str(strategy)]}
    elif strategy is not None:
        out.leave("router_settings.routing_strategy", f"{strategy} has no counterpart; `predictive` is the default")
    retries = router.get("num_retries", settings.get("num_retries"))
    if isinstance(retries, int) and retries >= 0:
        raw["retry"] = {"max_attempts": retries + 1}
    health: dict[str, Any] = {}
    if isinstance(router.get("allowed_fails"), int):
        health["failures_to_eject"] = max(router["allowed_fails"], 1)
    if isinstance(router.get("cooldown_time"), int | float) and router["cooldown_time"] > 0:
        health["ejection_s"] = router["cooldown_time"]
    if health:
        raw["health"] = health
    known = {"routing_strategy", "num_retries", "allowed_fails", "cooldown_time", "model_group_alias", "fallbacks"}
    rest(router, "router_settings", WHY, out, frozenset(known))
    rest(settings, "litellm_settings", WHY, out, frozenset({"num_retries", "fallbacks"}))
    return raw


def access(general: Mapping[str, Any], out: Imported) -> None:
    """Read the master key as a client key: its hash, never itself."""
    key = general.get("master_key")
    if isinstance(key, str) and key.startswith("os.environ/"):
        name = key.removeprefix("os.environ/")
        out.to_do.append(f'client key: put sha256:$(printf %s "${name}" | sha256sum) into access.client_keys')
    elif isinstance(key, str) and key:
        out.raw["access"] = {"client_keys": [f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"]}
        if len(key) < SHORTEST_KEY:
            out.to_do.append("the client key is short: its hash can be guessed, give clients a random one")
    rest(general, "general_settings", WHY, out, frozenset({"master_key"}))
