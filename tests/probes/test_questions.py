"""The questions: the known answer is judged right, another one wrong, and the same number asks the same."""

import base64
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.answers import Answer, is_right
from router.probes.questions import MAKERS, Question, image, needle, png, quick_questions
from router.probes.texts import load_probes

TEXTS = load_probes()
numbers = st.integers(0, 10_000)


def ideal(question: Question) -> Answer:
    if question.check != "tool":
        return Answer(f"Of course. {question.expected}")
    call = json.loads(question.expected)
    return Answer("", ((call["name"], json.dumps(call["arguments"])),))


@pytest.mark.parametrize("maker", list(MAKERS))
@given(number=numbers)
def test_the_known_answer_is_right_and_silence_is_wrong(maker: str, number: int) -> None:
    question = MAKERS[maker](number)
    assert is_right(question.check, question.expected, ideal(question))
    assert not is_right(question.check, question.expected, Answer(""))
    assert not is_right(question.check, question.expected, Answer("!!!!!!!!!!!!"))


@pytest.mark.parametrize("maker", list(MAKERS))
def test_the_same_number_asks_the_same_and_a_request_can_carry_it(maker: str) -> None:
    assert MAKERS[maker](3) == MAKERS[maker](3)
    json.dumps({"messages": list(MAKERS[maker](3).messages), "tools": list(MAKERS[maker](3).tools)})


def test_other_numbers_ask_otherwise() -> None:
    names = [q.name for number in range(20) for q in quick_questions(number)]
    assert len(set(names)) == len(names)
    assert len({str(q.messages) for number in range(20) for q in quick_questions(number)}) > 0.9 * len(names)


@given(numbers)
def test_the_word_with_the_letter_is_the_only_one_with_it(number: int) -> None:
    question = MAKERS["spelling"](number)
    asked = str(question.messages[0]["content"]).split(": ", 1)[1]
    assert sum(word.strip().startswith(question.expected[0]) for word in asked.split("?")[0].split(",")) == 1


@pytest.mark.parametrize("tokens", [2_000, 8_000])
def test_a_needle_lies_inside_a_text_of_about_the_length_asked_for(tokens: int) -> None:
    question = needle(1, TEXTS, tokens)
    text = str(question.messages[0]["content"])
    assert tokens * 0.8 <= len(text.encode()) / 4 <= tokens * 1.3 + 200
    assert text.count(question.expected) == 1
    assert 0.1 < text.index(question.expected) / len(text) < 0.9
    assert question.needs == {"long"}
    assert needle(1, TEXTS, tokens) == question != needle(2, TEXTS, tokens)


def test_the_picture_is_a_whole_png_of_one_colour() -> None:
    data = png(32, (1, 2, 3))
    at, names, pixels = 8, [], b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(name + body),)
        names.append(name)
        pixels += body if name == b"IDAT" else b""
        at += 12 + size
    assert names == [b"IHDR", b"IDAT", b"IEND"]
    assert zlib.decompress(pixels) == (b"\0" + b"\1\2\3" * 32) * 32


def test_the_picture_travels_in_the_message() -> None:
    assert '"red"' not in json.dumps(image(2).messages[0])
    content = image(2).messages[0]["content"]
    assert isinstance(content, list)
    url = content[0]["image_url"]["url"]
    assert base64.b64decode(url.split(",")[1]).startswith(b"\x89PNG")
