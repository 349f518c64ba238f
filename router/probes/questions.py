"""Makes questions whose answers are known: copying, arithmetic, a needle in a long text, JSON, a tool call, an image.

They are all that can be asked of a build that nothing can be compared with. Each is made from a number, so there are
always new ones, and its name says which: the same name is the same question. They are easy on purpose: a question is
there to find broken kernels, not to rank models. Answers are judged by `policy/answers.py`, by the words in `check`.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from router.probes.texts import ProbeText

WORDS = (  # no two begin with the same letter
    *("amber", "birch", "candle", "dolphin", "ember", "falcon", "garnet", "harbor", "island", "jasper", "kettle"),
    *("lantern", "maple", "nectar", "orchid", "pepper", "quartz", "ribbon", "saddle", "timber", "umber", "velvet"),
    *("willow", "yarrow", "zephyr"),
)
NEEDLE_TOKENS = 8_000  # where some kernels begin to fail: NaN only above 6.5k tokens was seen in the wild
BYTES_PER_TOKEN = 4.0  # of English prose
COLOURS: Mapping[str, tuple[int, int, int]] = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (20, 40, 220)}


@dataclass(frozen=True, slots=True)
class Question:
    """One question with a known answer, ready to be put into a chat request.

    Attributes:
        name: kind and number, stable.
        messages: the chat messages, as JSON values.
        check: how the answer is judged: "contains", "number", "copy", "row", "json" or "tool".
        expected: what it is judged against.
        max_tokens: enough for the answer with some thinking before it.
        tools: tool definitions to send along.
        needs: abilities a backend must have ("tools", "vision", "long").
        tokens: about how long the prompt is.
        answer_tokens: about how long the answer is, a little thinking included.
    """

    name: str
    messages: tuple[Mapping[str, object], ...]
    check: str
    expected: str
    max_tokens: int = 512
    tools: tuple[Mapping[str, object], ...] = ()
    needs: frozenset[str] = frozenset()
    tokens: int = 80
    answer_tokens: int = 120


def quick_questions(number: int) -> list[Question]:
    """Short questions that any chat model should answer; another number makes other ones."""
    return [make(number) for make in (copying, addition, multiplication, counting, spelling, json_object, last_word)]


def _ask(text: str) -> tuple[Mapping[str, object], ...]:
    return ({"role": "user", "content": text},)


def copying(number: int) -> Question:
    """Copy a line letter by letter."""
    dice = random.Random(f"copying {number}")
    line = " ".join(f"{dice.choice(WORDS)}-{dice.randrange(100, 1000)}" for _ in range(6))
    return Question(f"copying/{number}", _ask(f"Repeat this line exactly, and nothing else:\n{line}"), "copy", line)


def addition(number: int) -> Question:
    """Add two numbers of three digits."""
    dice = random.Random(f"addition {number}")
    a, b = dice.randrange(100, 1000), dice.randrange(100, 1000)
    return Question(f"addition/{number}", _ask(f"What is {a} + {b}? End with the number."), "number", str(a + b))


def multiplication(number: int) -> Question:
    """Multiply within the small table."""
    dice = random.Random(f"multiplication {number}")
    a, b = dice.randrange(3, 13), dice.randrange(3, 13)
    return Question(
        f"multiplication/{number}", _ask(f"What is {a} times {b}? End with the number."), "number", str(a * b)
    )


def counting(number: int) -> Question:
    """Say which number comes after the last of a row."""
    dice = random.Random(f"counting {number}")
    start, step = dice.randrange(2, 60), dice.choice((2, 5, 10))
    row = ", ".join(str(start + step * i) for i in range(6))
    text = f"Which number comes next in this row: {row}? End with the number."
    return Question(f"counting/{number}", _ask(text), "number", str(start + step * 6))


def spelling(number: int) -> Question:
    """Say which word of a list begins with a letter."""
    dice = random.Random(f"spelling {number}")
    words = dice.sample(WORDS, 5)
    text = (
        f"Which of these words begins with the letter {words[2][0].upper()}: {', '.join(words)}? Answer with the word."
    )
    return Question(f"spelling/{number}", _ask(text), "contains", words[2])


def json_object(number: int) -> Question:
    """Put facts from a sentence into a JSON object."""
    dice = random.Random(f"json {number}")
    name, count = dice.choice(WORDS), dice.randrange(2, 90)
    text = (
        f"The shop sold {count} boxes of {name} today. Answer with a JSON object that has the keys "
        '"item" (a string) and "count" (a number), and nothing else.'
    )
    return Question(f"json/{number}", _ask(text), "json", json.dumps({"item": name, "count": count}))


def last_word(number: int) -> Question:
    """Remember a word over two turns of a conversation."""
    dice = random.Random(f"last word {number}")
    word = dice.choice(WORDS)
    messages: tuple[Mapping[str, object], ...] = (
        {"role": "user", "content": f"Please remember the word {word}."},
        {"role": "assistant", "content": "I will remember it."},
        {"role": "user", "content": "Which word did I ask you to remember? Answer with the word."},
    )
    return Question(f"last_word/{number}", messages, "contains", word)


def tool_call(number: int) -> Question:
    """Call the one tool there is with the argument that the question names."""
    dice = random.Random(f"tool {number}")
    city = dice.choice(("Oslo", "Lima", "Cairo", "Hanoi", "Quito", "Turin"))
    weather = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city now.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    expected = json.dumps({"name": "get_weather", "arguments": {"city": city}})
    text = f"Use the tool to find out what the weather is like in {city}."
    return Question(
        f"tool/{number}", _ask(text), "tool", expected, tools=(weather,), needs=frozenset({"tools"}), tokens=200
    )


def recital(number: int) -> Question:
    """Count far: some faults show only hundreds of tokens into an answer, where a right model still counts on."""
    last = 560 + number % 80
    row = " ".join(map(str, range(1, last + 1)))
    text = f"Count from 1 to {last}. Put a space between the numbers and write nothing else."
    return Question(
        f"recital/{number}", _ask(text), "row", row, 3072, needs=frozenset({"long"}), answer_tokens=3 * last
    )


def needle(number: int, texts: Sequence[ProbeText], tokens: int = NEEDLE_TOKENS) -> Question:
    """Find one sentence in a long text, put together from the probe texts.

    The answer is judged after a long context, by generation: logprobs over one could kill the server.
    """
    dice = random.Random(f"needle {number} {tokens}")
    word, code = dice.choice(WORDS), dice.randrange(10_000, 100_000)
    paragraphs: list[str] = []
    size, prose = 0, [t.text for t in texts if t.kind == "en"]
    while size < tokens * BYTES_PER_TOKEN and prose:
        for paragraph in dice.sample(prose, len(prose)):
            paragraphs.append(f"({len(paragraphs) + 1}) {paragraph}")
            size += len(paragraph.encode())
            if size >= tokens * BYTES_PER_TOKEN:
                break
    at = dice.randrange(len(paragraphs) // 4, 1 + 3 * len(paragraphs) // 4)
    paragraphs.insert(at, f"The code for the {word} door is {code}.")
    question = f"What is the code for the {word} door? End with the number."
    text = "\n\n".join(["Read these notes.", *paragraphs, question])
    needs = frozenset({"long"})
    return Question(f"needle/{number}@{tokens}", _ask(text), "number", str(code), needs=needs, tokens=tokens)


def image(number: int) -> Question:
    """Name the colour of a picture that has only one."""
    colour = sorted(COLOURS)[number % len(COLOURS)]
    url = "data:image/png;base64," + base64.b64encode(png(32, COLOURS[colour])).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which colour is this picture: red, green or blue? Answer with one word."},
    ]
    messages: tuple[Mapping[str, object], ...] = ({"role": "user", "content": content},)
    return Question(f"image/{number % len(COLOURS)}", messages, "contains", colour, needs=frozenset({"vision"}))


def png(side: int, colour: tuple[int, int, int]) -> bytes:
    """A square picture of one colour (PNG, W3C Recommendation 2003: signature, IHDR, IDAT, IEND)."""
    rows = (b"\0" + bytes(colour) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


MAKERS: Mapping[str, Callable[[int], Question]] = {
    "copying": copying,
    "addition": addition,
    "multiplication": multiplication,
    "counting": counting,
    "spelling": spelling,
    "json": json_object,
    "last_word": last_word,
    "tool": tool_call,
    "recital": recital,
    "image": image,
}
