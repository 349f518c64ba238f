import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import ClientFault
from router.openai.call import edit, read_call
from router.openai.routes import match

AUDIO = match("POST", "/v1/audio/transcriptions")
KIND = b'multipart/form-data; boundary="cut here"'


def form(*fields: tuple[str, bytes], boundary: bytes = b"cut here") -> bytes:
    made = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (boundary, name.encode(), b'; filename="a.wav"' if name == "file" else b"", value)
        for name, value in fields
    )
    return made + b"--%b--\r\n" % boundary


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_only_the_model_part_changes(audio, more):
    body = form(("file", audio), ("model", b"whisper"), ("stream", b"true"), ("prompt", more))
    call = read_call(AUDIO, body, KIND)
    assert (call.model, call.stream, call.needs) == ("whisper", True, {"audio"})
    assert edit(call, model="org/ünit") == form(
        ("file", audio), ("model", "org/ünit".encode()), ("stream", b"true"), ("prompt", more)
    )
    assert edit(call) is body


def test_a_file_that_looks_like_a_form_is_not_read():
    inner = form(("model", b"evil"), boundary=b"other")
    call = read_call(AUDIO, form(("file", inner), ("model", b"good")), KIND)
    assert call.model == "good"


def test_a_preamble_and_unquoted_boundaries_are_fine():
    body = b"ignored\r\n" + form(("model", b"m"), boundary=b"x-1")
    assert read_call(AUDIO, body, b"Multipart/Form-Data; charset=utf-8; boundary=x-1").model == "m"


def test_an_empty_model_is_none():
    with pytest.raises(ClientFault) as caught:
        read_call(AUDIO, form(("model", b""), ("file", b"x")), KIND)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", KIND, 400),
        (b"{}", KIND, 400),
        (b"{}", b"application/json", 415),
        (b"{}", None, 415),
        (b"{}", b"multipart/form-data", 400),
        (form(("model", b"m"))[:-15], KIND, 400),
        (b"--cut here\r\nno end of headers", KIND, 400),
        (b"--cut here", KIND, 400),
        (b"--cut here--", KIND, 400),
        (form(("file", b"x")), KIND, 400),
    ],
    ids=range(10),
)
def test_a_broken_form_is_refused(body, kind, status):
    with pytest.raises(ClientFault) as caught:
        read_call(AUDIO, body, kind)
    assert caught.value.status == status
