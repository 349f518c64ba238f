"""What a person reads when the router cannot be asked: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from router.cli.ask import Admin
from router.cli.main import app


@contextlib.contextmanager
def nothing_listens() -> Iterator[int]:
    """A port that is bound, so that nobody else gets it, but refuses every connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def status(url: str, folder: Path, token: str = "secret") -> tuple[int, str]:
    """Exit code and words of `router status` asking there."""
    environ = {"ROUTER_STATE_DIR": str(folder), "ROUTER_ADMIN_TOKEN": token}
    ended = CliRunner().invoke(app, ["status", "--admin", url], env=environ)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.output


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:http", "foo", "ftp://127.0.0.1"])
def test_what_is_no_url_is_a_usage_error_that_says_how_one_looks(url: str, tmp_path: Path) -> None:
    code, words = status(url, tmp_path)
    assert (code, "http://HOST:PORT" in words, url in words) == (2, True, True), words


@pytest.mark.parametrize("path", ["", "/[/x]", "/[bold"])
def test_where_no_router_answers_the_url_is_said_as_it_was_given(path: str, tmp_path: Path) -> None:
    with nothing_listens() as port:
        code, words = status(f"http://127.0.0.1:{port}{path}", tmp_path)
    assert code == 3
    assert f"no router answers at http://127.0.0.1:{port}{path} (" in words
    assert "is `router serve` running?" in words


def test_a_token_that_no_header_can_carry_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with nothing_listens() as port:
        code, words = status(f"http://127.0.0.1:{port}", tmp_path, token="café")
    assert (code, "ROUTER_ADMIN_TOKEN" in words) == (1, True), words


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            httpx.Response(200, text="<p>NAS</p>", headers={"content-type": "text/html"}),
            3,
            "not the admin side",
        ),
        (httpx.Response(200, content=b""), 3, "not the admin side"),
        (httpx.Response(401, json={}), 1, "wants another token"),
        (httpx.Response(404, json={"error": {"message": "no backend [/x]"}}), 1, "no backend [/x]"),
        (httpx.Response(502, text="Bad Gateway"), 1, "the router answered 502: Bad Gateway"),
        (httpx.Response(500, json=["odd"]), 1, "the router answered 500"),
    ],
)
def test_an_answer_that_is_none_ends_with_a_sentence(
    answer: httpx.Response, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    router = Admin("http://router", transport=httpx.MockTransport(lambda _: answer))
    with pytest.raises(typer.Exit) as ended:
        router.get("/api/status")
    assert ended.value.exit_code == code
    assert said in capsys.readouterr().err


def test_errors_are_coloured_on_a_terminal_only(tmp_path: Path) -> None:
    with nothing_listens() as port:
        assert "\x1b" not in status(f"http://127.0.0.1:{port}", tmp_path)[1]
