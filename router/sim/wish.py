"""What a call asks of the simulated vLLM, checked as the real one checks it, with its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Refusal(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad(message: str, param: str | None = None, value: object = None) -> Refusal:
    """A 400 from behind the schema, in vLLM's words: which parameter, which value."""
    if param is not None:
        message += f" (parameter={param}" + (f", value={value})" if value is not None else ")")
    return Refusal(400, message, "BadRequestError", param)


def invalid(kind: str, path: str, said: str, got: object, more: str = "") -> Refusal:
    """A 400 from the schema: pydantic's finding as vLLM prints it."""
    shown = f"<dict of {len(got)} items>" if isinstance(got, dict) else str(got)
    finding = f"{{'type': '{kind}', 'loc': '{path}', 'msg': '{said}', 'input': '{shown}'{more}}}"
    return Refusal(400, f"1 validation error:\n  {finding}", "Bad Request", path)


@dataclass(frozen=True, slots=True)
class Wish:
    """The sampling parameters of a call, defaults filled in."""

    max_tokens: int | None
    n: int
    stop: tuple[str, ...]
    top_logprobs: int | None  # None: no logprobs asked for
    prompt_logprobs: int | None
    streams: bool
    wants_usage: bool
    wants_usage_always: bool
    returns_token_ids: bool
    names_ids: bool  # `return_tokens_as_token_ids`: tokens in logprobs are spelled token_id:N
    echoes: bool
    ignores_eos: bool
    temperature: float


def whole_number(body: Mapping[str, Any], name: str) -> int | None:
    """An integer field. Raises Refusal as pydantic would."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise invalid("int_type", f"body.{name}", "Input should be a valid integer", value)
    try:
        return int(value)
    except ValueError:
        said = "Input should be a valid integer, unable to parse string as an integer"
        raise invalid("int_parsing", f"body.{name}", said, value) from None


def wish_of(body: Mapping[str, Any], is_chat: bool, max_model_len: int, max_logprobs: int) -> Wish:
    """Read and check the parameters of a chat or completion. Raises Refusal."""
    given = whole_number(body, "max_tokens") if body.get("max_completion_tokens") is None else None
    max_tokens = given if given is not None else whole_number(body, "max_completion_tokens")
    streams = bool(body.get("stream"))
    options = body.get("stream_options") or {}
    if options and not streams:
        raise bad("Stream options can only be defined when `stream=True`.", "stream_options")
    heat = body.get("temperature")
    temperature = 1.0 if heat is None else float(heat)
    if temperature < 0:
        raise bad(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    echoes = bool(body.get("echo"))
    if max_tokens is not None and max_tokens < 1 and not (echoes and max_tokens == 0):
        raise bad(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if max_tokens is not None and max_tokens > max_model_len:
        said = f"max_tokens={max_tokens} cannot be greater than max_model_len={max_model_len}. Please request fewer"
        raise bad(f"{said} output tokens.", "max_tokens", max_tokens)
    if is_chat:
        top = (whole_number(body, "top_logprobs") or 0) if body.get("logprobs") else None
    else:
        top = whole_number(body, "logprobs")
    prompt_logprobs = whole_number(body, "prompt_logprobs")
    if prompt_logprobs is not None and streams:
        raise bad("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    for asked, name, what in ((top, "logprobs", "sample"), (prompt_logprobs, "prompt_logprobs", "prompt")):
        if asked is not None and asked > max_logprobs:
            raise bad(
                f"Requested {what} logprobs of {asked}, which is greater than max allowed: {max_logprobs}", name, asked
            )
    stop = body.get("stop")
    return Wish(
        max_tokens=max_tokens,
        n=whole_number(body, "n") or 1,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        top_logprobs=top,
        prompt_logprobs=top if echoes and top is not None and prompt_logprobs is None else prompt_logprobs,
        streams=streams,
        wants_usage=bool(options.get("include_usage")),
        wants_usage_always=bool(options.get("continuous_usage_stats")),
        returns_token_ids=bool(body.get("return_token_ids")),
        names_ids=bool(body.get("return_tokens_as_token_ids")),
        echoes=echoes,
        ignores_eos=bool(body.get("ignore_eos")),
        temperature=temperature,
    )
