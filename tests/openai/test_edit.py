"""Edits change what they name and nothing else: checked against texts whose every offset the test itself laid down."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.openai.call import edit, read_call
from router.openai.routes import match
from tests.openai.captures import client_request

CHAT = match("POST", "/v1/chat/completions")
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t \r\n"])
KEYS = st.sampled_from(
    ["model", "model", "max_tokens", "messages", "x", "größe", "mod", "models", "a\\b", 'say "model']
)
SCALARS = st.one_of(
    st.sampled_from(
        [
            "null",
            "true",
            "-0.0",
            "1e5",
            "123456789012345678901234567890",
            '"\\ud83d"',
            '"model"',
            '"\\"model\\":"',
            '"\\\\"',
        ]
    ),
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.integers().map(str),
)


def quoted(key: str, escape: bool) -> str:
    """Write a key plainly, or with its letters as escapes."""
    plain = json.dumps(key, ensure_ascii=False)
    return plain if not escape or "\\" in plain else '"' + "".join(f"\\u{ord(c):04x}" for c in key) + '"'


@dataclass(frozen=True)
class Laid:
    """One member as it was laid down: its key, the text before its value, the value's text, what follows."""

    key: str
    before: str
    value: str
    after: str


@st.composite
def laid_members(draw, keys=KEYS, values=SCALARS, min_size=0) -> list[Laid]:
    found = []
    for _ in range(draw(st.integers(min_size, 5))):
        key = draw(keys)
        before = draw(SPACE) + quoted(key, draw(st.integers(0, 4)) == 0) + draw(SPACE) + ":" + draw(SPACE)
        found.append(Laid(key, before, draw(values), draw(SPACE)))
    return found


def render(members: list[Laid], tail: str = "") -> str:
    return "{" + ",".join(m.before + m.value + m.after for m in members) + "}" + tail


NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + " , ".join(items) + "]"),
        laid_members(values=inner).map(render),
    ),
    max_leaves=8,
)
MODEL_NAME = st.text(min_size=1, max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False))


@st.composite
def bodies(draw) -> list[Laid]:
    """Members of a body whose model is a string and whose other known fields have their right types."""
    members = draw(laid_members(values=NESTED))
    typed = {
        "model": MODEL_NAME,
        "max_tokens": st.integers(0, 10**30).map(str),
        "messages": st.lists(NESTED, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
    }
    members.append(Laid("model", quoted("model", draw(st.booleans())) + ":", '"m"', ""))
    shuffled = draw(st.permutations(members))
    return [Laid(m.key, m.before, draw(typed[m.key]), m.after) if m.key in typed else m for m in shuffled]


def last(members: list[Laid], key: str) -> int:
    return max(i for i, member in enumerate(members) if member.key == key)


def with_value(members: list[Laid], index: int, value: str) -> list[Laid]:
    return [Laid(m.key, m.before, value, m.after) if i == index else m for i, m in enumerate(members)]


def call_of(text: str):
    return read_call(CHAT, text.encode("utf-8", "surrogatepass"), b"application/json")


@given(bodies(), SPACE)
def test_another_model_name_changes_the_last_model_and_no_other_byte(members, tail):
    call = call_of(render(members, tail))
    wanted = render(with_value(members, last(members, "model"), '"org/ünit"'), tail)
    assert edit(call, model="org/ünit") == wanted.encode()


@given(bodies(), SPACE, st.integers(1, 100))
def test_a_clamp_changes_the_last_limit_and_no_other_byte(members, tail, most):
    call = call_of(render(members, tail))
    wanted = members
    if any(m.key == "max_tokens" for m in members) and int(members[last(members, "max_tokens")].value) > most:
        wanted = with_value(members, last(members, "max_tokens"), str(most))
    assert edit(call, max_tokens=most) == render(wanted, tail).encode()


@given(bodies(), SPACE)
def test_usage_is_asked_for_at_the_end_and_no_other_byte_changes(members, tail):
    members = [*members, Laid("stream", '"stream":', "true", "")]
    call = call_of(render(members, tail))
    asked = ',"stream_options":{"include_usage":true}'
    wanted = "{" + ",".join(m.before + m.value + m.after for m in members) + asked + "}" + tail
    assert edit(call, include_usage=True) == wanted.encode()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("null", '{"include_usage":true}'),
        ("7", '{"include_usage":true}'),
        ("{}", '{"include_usage":true}'),
        ("{ }", '{ "include_usage":true}'),
        ('{"include_usage": false, "x": 1}', '{"include_usage": true, "x": 1}'),
        ('{"continuous_usage_stats": false}', '{"continuous_usage_stats": false,"include_usage":true}'),
        ('{"x":{"include_usage":false}}', '{"x":{"include_usage":false},"include_usage":true}'),
        ('{"include_usage":true,"include_usage":false}', '{"include_usage":true,"include_usage":true}'),
        ('{"include_usage": true}', '{"include_usage": true}'),
    ],
)
def test_stream_options_that_are_there_keep_their_other_values(options, wanted):
    body = '{"model":"m","stream_options":%s,"stream":true,"messages":[]}'
    assert edit(call_of(body % options), include_usage=True) == (body % wanted).encode()


def test_usage_is_only_asked_for_in_streams_of_choices():
    call = call_of('{"model":"m","messages":[]}')
    assert edit(call, include_usage=True) is call.body
    typed = read_call(match("POST", "/v1/messages"), b'{"model":"m","stream":true,"messages":[]}', None)
    assert edit(typed, include_usage=True) is typed.body


def test_no_edit_hands_back_the_same_object():
    call = call_of('{"model":"m","max_tokens":5,"messages":[]}')
    assert edit(call) is call.body
    assert edit(call, model="m", max_tokens=5) is call.body


def test_all_edits_together_keep_real_clients_requests():
    for name in ("opencode-005", "open-webui-006"):
        request = client_request(name) | {"stream": True}
        request.pop("stream_options", None)
        request["max_tokens"] = 32000
        call = read_call(CHAT, json.dumps(request).encode(), b"application/json")
        edited = json.loads(edit(call, model="other", max_tokens=2048, include_usage=True))
        assert edited == request | {
            "model": "other",
            "max_tokens": 2048,
            "stream_options": {"include_usage": True},
        }


def test_a_schema_that_speaks_of_a_model_is_left_alone():
    body = (
        '{"tools":[{"function":{"parameters":{"properties":{"model":{"type":"string"}},"required":["model"]}}}],'
        '"model":"a","messages":[{"content":"\\"model\\":\\"a\\""}],"metadata":{"model":"a"}}'
    )
    assert edit(call_of(body), model="b").decode() == body.replace('],"model":"a"', '],"model":"b"')
