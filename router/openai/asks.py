"""What a parsed body asks for beyond its plain fields: session, guidance, media, thinking, a background call.

Every function takes the parsed body (or a part of it) and tolerates any JSON in it: what is odd is the backend's to
refuse. They run for every call, so they look at as little as they can.
"""

from __future__ import annotations

from typing import Any

# Calls that nobody watches, by how their first message begins: Open WebUI and opencode 1.18 as seen on the wire.
BACKGROUND_PROMPTS = (
    ("### Task:\nGenerate a concise", "title"),
    ("### Task:\nGenerate 1-3 broad tags", "tags"),
    ("### Task:\nPredict 3-5", "follow_up"),
    ("### Task:\nSuggest 3-5 relevant follow-up", "follow_up"),
    ("You are a title generator.", "title"),
)
_GUIDES = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
_SESSION_KEYS = ("session_id", "conversation_id", "chat_id", "conversation", "thread_id")


def text(value: object) -> str | None:
    """Return a string that holds something, else None."""
    return value if isinstance(value, str) and value else None


def strings(value: object) -> tuple[str, ...]:
    """Return one string or a list of them as a tuple, less what is empty or no string."""
    found = value if isinstance(value, list) else (value,)
    return tuple(one for one in found if isinstance(one, str) and one)


def session(document: dict[str, Any]) -> str | None:
    """Return a conversation's id, where the client wrote one into the body."""
    for key in _SESSION_KEYS:
        value = document.get(key)
        if value is not None:
            return text(value.get("id")) if isinstance(value, dict) else text(value)
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        for key in (*_SESSION_KEYS, "user_id"):  # Claude Code writes its session into metadata.user_id
            if found := text(metadata.get(key)):
                return found
    return None


def is_guided(document: dict[str, Any]) -> bool:
    """Say whether a schema, grammar or choice constrains the output."""
    wanted = document.get("response_format")
    if wanted is None and isinstance(document.get("text"), dict):  # the responses route's place for it
        wanted = document["text"].get("format")
    if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
        return True
    return any(document.get(key) is not None for key in _GUIDES)


def media(messages: Any) -> tuple[frozenset[str], int]:
    """Return the abilities that non-text parts ask for, and how many characters those parts hold inline."""
    found: set[str] = set()
    size = 0
    if messages.__class__ is not list:
        return frozenset(), 0
    for message in messages:
        content = message.get("content") if message.__class__ is dict else None
        if content.__class__ is not list:
            continue
        for part in content:
            kind = part.get("type") if part.__class__ is dict else None
            if not isinstance(kind, str) or kind == "text":
                continue
            if "image" in kind or "video" in kind:
                found.add("vision")
                size += _inline_size(part)
            elif "audio" in kind:
                found.add("audio")
                size += _inline_size(part)
    return frozenset(found), size


def _inline_size(part: dict[str, Any]) -> int:
    """Count the characters of a part's data, where it is written into the body as a data URL or base64."""
    values = [inner for value in part.values() for inner in (value.values() if isinstance(value, dict) else (value,))]
    return sum(len(value) for value in values if isinstance(value, str))


def thinking(document: dict[str, Any]) -> bool | None:
    """Say whether the call switches reasoning on or off; None where it leaves that to the model."""
    template = document.get("chat_template_kwargs")
    if isinstance(template, dict):
        for key in ("enable_thinking", "thinking"):
            if isinstance(template.get(key), bool):
                return bool(template[key])
    switch = document.get("thinking")
    if isinstance(switch, dict):
        return switch.get("type") != "disabled"
    effort = document.get("reasoning_effort")
    if effort is None and isinstance(document.get("reasoning"), dict):
        effort = document["reasoning"].get("effort")
    return effort != "none" if isinstance(effort, str) else None


def background(prompt: Any) -> str | None:
    """Name the kind of background call that the first message gives away, None for any other call."""
    if prompt.__class__ is not list or not prompt or prompt[0].__class__ is not dict:
        return None
    content = prompt[0].get("content")
    if content.__class__ is str:
        for beginning, name in BACKGROUND_PROMPTS:
            if content.startswith(beginning):
                return name
    return None
