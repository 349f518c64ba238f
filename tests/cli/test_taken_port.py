"""A port that is taken ends a server's command with a sentence that names the port and the flag."""

from __future__ import annotations

import socket

from typer.testing import CliRunner

from router.cli.main import app


def test_a_simulated_server_on_a_taken_port_says_which_flag_to_change() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        ended = CliRunner().invoke(app, ["sim", "--port", str(port), "--model", "x"])
    assert (ended.exit_code, isinstance(ended.exception, SystemExit)) == (1, True), ended.exception
    assert str(port) in ended.output
    assert "--port" in ended.output
