"""What the simulated model answers to a chat: counting, sums, repetition, JSON, a tool call, or prose.

Everything that decides stands in the prompt's text (`render`), so prefill and decode, and any other simulated server
with the same prompt, agree about what the answer is.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.sim.tokens import WORDS

HEADER = "<|im_start|>assistant\n"
_COUNT = re.compile(r"\b(?:count (?:from 1 )?to|numbered(?: to)?|numbers? 1 to)\s+(\d{1,6})", re.IGNORECASE)
_SUM = re.compile(r"\b(\d{1,9})\s*([+*×x-]|plus|minus|times)\s*(\d{1,9})", re.IGNORECASE)
_REPEAT = re.compile(
    r"\brepeat(?: exactly| after me| this| the following| line|, and nothing else)*\s*:\s*(.+)",
    re.IGNORECASE | re.DOTALL,
)
_ROW = re.compile(r"comes next in this row: ([\d, ]+)\?")
_LETTER = re.compile(r"begins with the letter (\w): ([\w, ]+)\?")
_SOLD = re.compile(r"sold (\d+) boxes of (\w+) today")
_SECRET = re.compile(r"[Tt]he code for the (\w+) door is (\d+)")
_ASKED_SECRET = re.compile(r"[Ww]hat is the code for the (\w+) door\?")
_REMEMBER = re.compile(r"[Rr]emember the word (\w+)")
_RECALL = re.compile(r"[Ww]hich word did I ask you to remember")
_FACTS = {"capital of france": "Paris", "capital of germany": "Berlin", "capital of italy": "Rome"}
NUMBERED_DEFAULT = 100


@dataclass(frozen=True, slots=True)
class Script:
    """An answer, and whether it can be checked word by word (then nothing but damage moves it)."""

    text: str
    is_exact: bool


def render(messages: Sequence[Mapping[str, Any]], body: Mapping[str, Any], thinks: bool) -> str:
    """The chat as ChatML; tools, format and wishes go into a system turn, as a chat template puts them there."""
    extra = [f"# Tools\n{json.dumps(body['tools'], separators=(',', ':'))}"] if _uses_tools(body) else []
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        extra.append(f"# Call {choice.get('function', {}).get('name', '')}")
    elif choice == "required":
        extra.append("# Call any")
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        extra.append(f"# Format {json.dumps(form['json_schema'].get('schema', {}), separators=(',', ':'))}")
    elif form.get("type") == "json_object":
        extra.append('# Format {"type":"object"}')
    if (body.get("vllm_xargs") or {}).get("sim") == "numbered":
        extra.append(f"# Numbered {(body['vllm_xargs']).get('upto', NUMBERED_DEFAULT)}")
    turns = [f"<|im_start|>system\n{one}<|im_end|>\n" for one in extra]
    turns += [f"<|im_start|>{one.get('role', 'user')}\n{content_of(one)}<|im_end|>\n" for one in messages]
    text = "".join(turns)
    if body.get("continue_final_message"):
        return text.removesuffix("<|im_end|>\n")
    if body.get("add_generation_prompt", True):
        text += HEADER + ("<think>\n" if thinks else "")
    return text


def content_of(message: Mapping[str, Any]) -> str:
    """A message's text: its content, or its text parts joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return ""


def script(before: str) -> Script:
    """The answer to a chat, given its text up to the header of the answer."""
    numbered = re.search(r"# Numbered (\d+)", before)
    if numbered:
        return Script(count(int(numbered[1])), True)
    asked = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", before, re.DOTALL)
    last = asked[-1] if asked else ""
    tool = _tool_call(before, last)
    if tool is not None:
        return Script(tool, True)
    form = re.search(r"# Format (.*?)<\|im_end\|>", before, re.DOTALL)
    if form:
        return Script(json.dumps(filled(json.loads(form[1]), last)), True)
    known = _known(last) or _remembered(asked, last)
    return Script(known, True) if known is not None else Script(prose(before), False)


def thought(before: str) -> str:
    """What a reasoning model thinks before that answer."""
    return prose(before + "?", 3)


def count(upto: int) -> str:
    """1 2 3 … with a space after each, one token a number: a lost, doubled or swapped token shows."""
    return "".join(f"{one} " for one in range(1, upto + 1))


def prose(before: str, sentences: int = 0) -> str:
    """Sentences of common words, the same for the same prompt."""
    dice = random.Random(zlib.crc32(before.encode("utf-8", "replace")))
    told = []
    for _ in range(sentences or dice.randint(2, 12)):
        words = [dice.choice(WORDS).lower() for _ in range(dice.randint(5, 14))]
        told.append(" ".join(words).capitalize() + ".")
    return " ".join(told)


def filled(schema: Any, hint: str = "") -> Any:
    """A value that a JSON schema allows: its first enum value, its required properties, the plainest leaf."""
    if not isinstance(schema, Mapping):
        return "answer"
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        wanted = schema.get("required") or list(schema.get("properties", {})) or ["answer"]
        return {name: filled(schema.get("properties", {}).get(name, {}), hint) for name in wanted}
    if kind == "array":
        return [filled(schema.get("items", {}), hint)] * max(1, int(schema.get("minItems", 1)))
    plain = {"integer": int(schema.get("minimum", 1)), "number": 1.5, "boolean": True, "null": None}
    names = re.findall(r"\b[A-Z][a-z]+\b", hint)
    return plain.get(kind, names[-1] if names else "answer")


def _known(asked: str) -> str | None:
    counting = _COUNT.search(asked)
    if counting:
        return count(int(counting[1]))
    repeat = _REPEAT.search(asked)
    if repeat:
        return repeat[1].strip().strip('"')
    found = _SUM.search(asked)
    if found:
        a, sign, b = int(found[1]), found[2].lower(), int(found[3])
        return str(a + b if sign in "+plus" else a - b if sign in "-minus" else a * b)
    row, letter, sold = _ROW.search(asked), _LETTER.search(asked), _SOLD.search(asked)
    if row:
        numbers = [int(one) for one in row[1].split(",")]
        return str(2 * numbers[-1] - numbers[-2])
    if letter:
        return next((word for word in letter[2].split(", ") if word[:1].upper() == letter[1].upper()), None)
    if sold:
        return json.dumps({"item": sold[2], "count": int(sold[1])})
    return next((answer for fact, answer in _FACTS.items() if fact in asked.lower()), None)


def _remembered(asked: Sequence[str], last: str) -> str | None:
    """What stands earlier in the conversation, or far up in the same prompt."""
    if _RECALL.search(last):
        told = [found[1] for turn in asked if (found := _REMEMBER.search(turn))]
        return told[-1] if told else None
    wanted = _ASKED_SECRET.search(last)
    if wanted is None:
        return None
    told = [found[2] for turn in asked for found in _SECRET.finditer(turn) if found[1] == wanted[1]]
    return told[-1] if told else None


def _uses_tools(body: Mapping[str, Any]) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice", "auto") != "none"


def _tool_call(before: str, asked: str) -> str | None:
    found = re.search(r"# Tools\n(\[.*?\])(?:<\|im_end\|>)", before, re.DOTALL)
    if not found or re.search(r"<\|im_start\|>tool\n", before.rpartition("<|im_start|>user")[2]):
        return None
    tools = [one.get("function", one) for one in json.loads(found[1])]
    forced = re.search(r"# Call (\S+)<\|im_end\|>", before)
    names = {one.get("name"): one for one in tools}
    if forced:
        tool = names.get(forced[1], tools[0])
    else:
        tool = next((one for name, one in names.items() if name and name in asked), None)
        if tool is None and len(tools) == 1 and re.search(r"\buse the tool\b", asked, re.IGNORECASE):
            tool = tools[0]
    if tool is None:
        return None
    call = {"name": tool.get("name"), "arguments": filled(tool.get("parameters", {"type": "object"}), asked)}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
