"""`router check`: what it prints, what it exits with, and what it says about names that do not resolve."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from router.cli.check import MISTAKES, check, checked
from router.names import Name, look_up, why_not

KNOWN = {"spark-1": ("192.168.1.10",), "localhost": ("127.0.0.1", "::1")}


def resolver(host: str) -> tuple[str, ...]:
    if host not in KNOWN:
        raise OSError(-2, "Name or service not known")
    return KNOWN[host]


def run(tmp_path: Path, text: str, *, in_container: bool = False, resolve: bool = True) -> tuple[int, str]:
    file = tmp_path / "fleet.yaml"
    file.write_text(text)
    console = Console(file=io.StringIO(), width=200)
    code = checked(file, {}, resolver if resolve else None, in_container, console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_a_good_file_is_summed_up_with_its_addresses(tmp_path: Path) -> None:
    code, said = run(tmp_path, "[http://spark-1:8000, http://spark-1:8001]")
    assert code == 0
    assert "2 backends, 1 host, 0 aliases" in said
    assert "192.168.1.10" in said


def test_every_mistake_stands_on_its_own_line_with_file_and_line(tmp_path: Path) -> None:
    code, said = run(tmp_path, "backends:\n- spark-1:8000\ntimeout: {}\npassive: '[red]'\n")
    assert code == 1
    assert "fleet.yaml:2 backends[0].url:" in said
    assert "fleet.yaml:3 timeout:" in said
    assert "[red]" in said
    assert "3 mistakes" in said


def test_a_file_that_is_not_there_is_another_exit_code(tmp_path: Path) -> None:
    assert checked(tmp_path / "none", {}, None, False, Console(file=io.StringIO())) == 2


def test_names_that_do_not_resolve_are_explained_once_each_kind(tmp_path: Path) -> None:
    text = "[http://a.local:1, http://b.local:1, http://c.ts.net:1]"
    code, said = run(tmp_path, text, in_container=True)
    assert code == 1
    assert "a.local, b.local: a .local name is found by mDNS" in said
    assert "c.ts.net: a Tailscale name" in said
    assert "tailscale ip -4 c.ts.net" in said


def test_names_are_left_alone_where_asked(tmp_path: Path) -> None:
    assert run(tmp_path, "[http://a.local:1]", resolve=False)[0] == 0


def test_a_named_file_that_is_missing_is_said(tmp_path: Path) -> None:
    code, said = run(tmp_path, "{backends: [{url: 'https://spark-1', tls_ca: /none.pem}]}")
    assert code == 1
    assert "backends[0].tls_ca: there is no file /none.pem" in said


def test_what_is_allowed_and_hardly_meant_is_hinted_at(tmp_path: Path) -> None:
    text = "- {url: 'https://spark-1', kernel: marlni, api_key: s3cret, tls_verify: false}"
    code, said = run(tmp_path, text)
    assert code == 0
    assert "did you mean marlin?" in said
    assert "put it into the environment" in said
    assert "s3cret" not in said
    assert "certificate is not checked" in said


@pytest.mark.parametrize(
    ("host", "in_container", "part"),
    [
        ("spark.local", True, "multicast does not cross Docker's bridge"),
        ("spark.local", False, "libnss-mdns"),
        ("spark.tail1234.ts.net", True, "dns: [100.100.100.100]"),
        ("spark.tail1234.ts.net", False, "--accept-dns=true"),
        ("spark-9", True, "extra_hosts"),
        ("spark-9", False, "/etc/hosts"),
        ("spark.example.org", True, "no name server"),
        ("host.docker.internal", True, "host-gateway"),
    ],
)
def test_each_kind_of_name_has_its_reason_and_its_cure(host: str, in_container: bool, part: str) -> None:
    assert part in why_not(host, in_container)


def test_localhost_inside_a_container_is_the_container() -> None:
    (inside,) = look_up(["localhost"], resolver, in_container=True)
    (outside,) = look_up(["localhost"], resolver, in_container=False)
    assert "host.docker.internal" in inside.hint
    assert outside == Name("localhost", ("127.0.0.1", "::1"))


def test_each_name_is_looked_up_once() -> None:
    asked = list[str]()

    def counting(host: str) -> tuple[str, ...]:
        asked.append(host)
        return ("10.0.0.1",)

    look_up(["a", "b", "a"], counting, in_container=False)
    assert sorted(asked) == ["a", "b"]


def test_the_command_prints_the_schema_and_asks_for_a_file() -> None:
    app = typer.Typer()
    app.command()(check)
    assert json.loads(CliRunner().invoke(app, ["--schema"]).stdout)["$defs"]
    assert CliRunner().invoke(app, [], env={"ROUTER_CONFIG": ""}).exit_code == 2


def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("garbage")
    file = tmp_path / "fleet.yaml"
    file.write_text(f"backends:\n  - {{name: spark, url: 'https://127.0.0.1:1', tls_ca: {tmp_path / 'ca.pem'}}}\n")
    console = Console(width=200, file=io.StringIO())
    assert checked(file, {}, None, False, console) == MISTAKES
    assert isinstance(console.file, io.StringIO)
    assert f"{tmp_path / 'ca.pem'} holds no certificate" in console.file.getvalue()


def test_localhost_in_a_container_is_a_warning_since_it_may_share_its_hosts_network(tmp_path: Path) -> None:
    code, said = run(tmp_path, "backends: ['http://localhost:8000']\n", in_container=True)
    assert code == 0
    assert "host.docker.internal" in said
    code, _ = run(tmp_path, "backends: ['http://localhost:8000', 'http://nowhere:8000']\n", in_container=True)
    assert code == 1
