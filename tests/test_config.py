"""The fleet file: what it accepts, what it says about mistakes, what a reload would change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.config import BackendConfig, FleetConfig, ModelConfig, Section, Timeouts
from router.configdiff import ConfigDiff, compare
from router.configtypes import as_name, default_name, plain_url, to_bytes, to_ports
from router.errors import ConfigFault
from router.fleetfile import FleetFault, Problem, from_urls, json_schema, load, parse

CONFIG = Path(__file__).parent.parent / "config"


def problems(text: str, **environ: str) -> list[tuple[int, str, str]]:
    with pytest.raises(FleetFault) as caught:
        parse(text, "fleet.yaml", environ)
    return [(one.line, one.path, one.message) for one in caught.value.problems]


def fleet(text: str, **environ: str) -> FleetConfig:
    return parse(text, "fleet.yaml", environ)


# what a file may say


def test_a_list_of_urls_is_a_whole_file() -> None:
    config = load(CONFIG / "minimal.yaml", {})
    assert [one.name for one in config.backends] == ["spark-1-8000", "spark-1-8001", "spark-2-8000"]
    assert config.backends[1].host == ("spark-1",)
    assert config.timeouts == Timeouts()


def test_the_example_shows_every_field_with_its_meaning() -> None:
    comments = " ".join(line.strip("# -") for line in (CONFIG / "fleet.yaml").read_text().splitlines() if "#" in line)
    for section in sections():
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} says nothing"
            assert field.description.strip(" -") in comments, f"{section.__name__}.{name} is not in config/fleet.yaml"


def test_the_example_shows_every_field_by_name() -> None:
    named = set(re.findall(r"(\w+):", (CONFIG / "fleet.yaml").read_text()))
    assert {name for section in sections() for name in section.model_fields} <= named


def test_the_example_shows_the_defaults() -> None:
    text = (CONFIG / "fleet.yaml").read_text()
    config, raw = load(CONFIG / "fleet.yaml", {}), yaml.safe_load(text)
    for name in FleetConfig.model_fields.keys() - {"backends", "models", "aliases"}:
        assert name in raw
        assert getattr(config, name) == FleetConfig.model_fields[name].default
    shown = next(iter(config.models.values()))
    assert shown == ModelConfig()


def test_what_is_commented_out_in_the_example_would_load() -> None:
    text = (CONFIG / "fleet.yaml").read_text()
    whole = re.sub(r"^( +)# (\w+: \S+)$", r"\1\2", text, flags=re.MULTILINE)
    assert whole.count("\n#") < text.count("#")
    config = fleet(whole, SPARK_1_KEY="secret")
    assert config.backends[0].api_key is not None
    assert config.backends[0].api_key.get_secret_value() == "secret"
    assert config.access.tls_cert is not None


def test_an_address_may_be_pasted_with_v1() -> None:
    assert fleet("[http://spark-1:8000/v1/]").backends[0].url == "http://spark-1:8000"


def test_a_unix_socket_is_an_address_on_this_machine() -> None:
    (backend,) = fleet("- unix:/run/vllm/marlin.sock").backends
    assert (backend.name, backend.host, backend.urls) == (
        "marlin.sock",
        ("localhost",),
        ("unix:/run/vllm/marlin.sock",),
    )


def test_a_range_of_ports_gives_every_address_on_the_first_host() -> None:
    (backend,) = fleet("- {host: [spark-1, spark-2], ports: [8000-8001, 9000]}").backends
    assert backend.urls == ("http://spark-1:8000", "http://spark-1:8001", "http://spark-1:9000")
    assert backend.name == "spark-1-8000"


def test_a_machine_may_be_named_by_its_ipv6_address() -> None:
    (backend,) = fleet("- {host: '[FD00::0:1]', ports: '8000, 8004'}").backends
    assert backend.urls == ("http://[fd00::1]:8000", "http://[fd00::1]:8004")


def test_this_machine_has_one_name_however_it_is_written() -> None:
    hosts = {one.host for one in from_urls(["http://127.0.0.1:1", "http://localhost:2", "http://[::1]:3"]).backends}
    assert hosts == {("localhost",)}


def test_a_secret_comes_from_the_environment_and_is_never_shown() -> None:
    config = fleet("- {url: http://a:1, api_key: 'x${KEY}$$'}", KEY="s3cret")
    key = config.backends[0].api_key
    assert key is not None
    assert key.get_secret_value() == "xs3cret$"
    assert "s3cret" not in repr(config)


def test_a_mistake_does_not_show_a_secret() -> None:
    with pytest.raises(FleetFault) as caught:
        fleet("- {url: http://a:1, kind: '${KEY}'}\n- http://me:${KEY}@b:1\n- me:${KEY}@b:1", KEY="s3cret")
    assert "s3cret" not in str(caught.value)


def test_settings_of_a_model_are_filled_in_from_those_for_all() -> None:
    config = fleet("{models: {m: {policy: round-robin}}, routing: {sticky: false}, quality: {canary: false}}")
    assert config.for_model("m").policy == "round-robin"
    assert config.for_model("other").policy == "predictive"
    assert config.for_model("m").sticky is False
    assert config.for_model("m").canary is False


def test_an_alias_means_its_models_in_order_through_other_aliases() -> None:
    config = fleet("aliases: {best: [big, fast], fast: [small, big]}")
    assert config.targets("best") == ("big", "small")
    assert config.targets("big") == ("big",)


def test_fields_may_be_shared_by_reference() -> None:
    config = fleet("backends:\n- &a {url: http://a:1, kernel: marlin}\n- {<<: *a, url: http://b:1}")
    assert [one.kernel for one in config.backends] == ["marlin", "marlin"]


def test_sizes_are_read_with_units() -> None:
    assert fleet("limits: {body_bytes: 1.5 MiB}").limits.body_bytes == 1536 * 1024


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        fleet("[http://a:1]").passive = True  # type: ignore[misc]


# what it says about mistakes


def test_every_mistake_is_said_at_once_with_line_path_and_what_was_meant() -> None:
    text = """\
backends:
  - http://spark-1:8000
  - http://spark-1:8000/v1
  - spark-2:8000
  - url: http://spark-3:8000
    ports: 8000-8010
    kernl: marlin
    name: a b
  - url: http://spark-4:8000
    api_key: ${NOPE}
    url: http://spark-5:8000
    max_in_flight: 1.5
  - {host: spark-9, ports: 8000-7000, kind: vlm}
timeout: {connect_s: 5}
timeouts:
  connect_s: 5 s
  first_byte_s: 30
  queue: 5
aliases:
  gpt-4: qwen
  qwen: [gpt-4]
  5: x
inter_chunk_s: 3
routing: {policy: predictiv, exploration: .inf}
models: [a]
passive: maybe
access: {client_keys: [abc], tls_cert: /x}
"""
    said = problems(text)
    expected = [
        (3, "backends[1].url", "the same address"),
        (4, "backends[2].url", "meant: http://spark-2:8000?"),
        (6, "backends[3].ports", "url and ports contradict each other"),
        (7, "backends[3].kernl", "did you mean kernel?"),
        (8, "backends[3].name", "letters, digits"),
        (10, "backends[4].api_key", "the environment variable NOPE is not set"),
        (11, "backends[4].url", "given twice (line 9 too)"),
        (12, "backends[4].max_in_flight", "a whole number, not 1.5"),
        (13, "backends[5].kind", "did you mean vllm?"),
        (13, "backends[5].ports", "no range of ports"),
        (14, "timeout", "did you mean timeouts?"),
        (16, "timeouts.connect_s", "needs a number of seconds, not the text '5 s'"),
        (17, "timeouts.first_byte_s", "at least 120"),
        (18, "timeouts.queue", "did you mean queue_s?"),
        (20, "aliases.gpt-4", "leads back to gpt-4"),
        (21, "aliases.qwen", "leads back to qwen"),
        (22, "aliases", "'5' is no name of a field"),
        (23, "inter_chunk_s", "belongs under timeouts"),
        (24, "routing.exploration", "finite"),
        (24, "routing.policy", "did you mean predictive?"),
        (25, "models", "not a list"),
        (26, "passive", "true or false"),
        (27, "access.client_keys[0]", "sha256"),
        (27, "access.tls_key", "belong together"),
    ]
    assert [(line, path) for line, path, _ in said] == [(line, path) for line, path, _ in expected]
    for (_, _, message), (_, _, part) in zip(said, expected, strict=True):
        assert part in message


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("a: b: c", 1, "quote a text that holds a colon"),
        ("x:\n\ty: 1", 2, "spaces, not tabs"),
        ("a: &x [*x]", 1, "refers to itself"),
        ("a: *x", 1, "undefined alias"),
        ("42", 1, "needs fields below it"),
        ("a: \x07", 1, "not readable as YAML"),
        ("--- {}\n--- {}", 2, "document"),
        ("a: !!python/object:os.system {}", 1, "a"),
        ("[" * 2000, 1, "deep"),
    ],
)
def test_a_text_that_is_no_fleet_file_is_refused_with_its_line(text: str, line: int, part: str) -> None:
    (first, *_) = problems(text)
    assert first[0] == line
    assert part in first[2]


def test_references_cannot_blow_a_small_file_up() -> None:
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert "too large" in problems(text)[0][2]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- {name: x}", "no address"),
        ("- {ports: 8000}", "ports need a host"),
        ("- {host: a, ports: []}", "no port"),
        ("- {host: a, ports: true}", "a number, a range"),
        ("- {host: a, ports: 0-5}", "no range"),
        ("- {host: a, ports: 1-65535}", "at most 1024"),
        ("- ftp://a", "ftp:// is not spoken here"),
        ("- http://a:1/path", "without path"),
        ("- http://a:1?x=1", "without path"),
        ("- http://u:p@a:1", "api_key"),
        ("- http://a:99999", "no number from 1 to 65535"),
        ("- http://a:0", "no number from 1 to 65535"),
        ("- unix:run/x", "whole path"),
        ("- http://a:b", "no number from 1 to 65535"),
        ("- 'http://a b:1'", "no blank, comma"),
        ("['http://a:1, http://b:1']", "no blank, comma"),
        ("- {host: 'a:8000', ports: 8000}", "a host is a name or an address alone"),
        ("- {host: 'http://a', ports: 8000}", "a host is a name or an address alone"),
        ("- {url: http://a:1, log: /var/log/x}", "docker:NAME"),
        ("[http://a:1, http://a:1]", "same address"),
        ("[{name: x, url: http://a:1}, {name: x, url: http://b:1}]", "another backend is called x too"),
        ("[{name: x, host: a, ports: 1-5}, {name: y, host: a, ports: 5}]", "tell them apart"),
        ("{backends: [{url: http://a:1, serves: m}], aliases: {m: n}}", "served model"),
        ("{models: {m: {}}, aliases: {m: n}}", "settings under models"),
        ("aliases: {m: m}", "leads back"),
        ("aliases: {m: []}", "no model"),
        ("aliases: {m@b: x}", "@"),
        ("aliases: {m: {x: y}}", "list"),
        ("limits: {body_bytes: 10 parsec}", "64 KiB"),
        ("limits: {body_bytes: 10}", "at least 1024"),
        ("backends: [[1]]", "not a list"),
        ("backends: 7", "not 7"),
        ("notify: {url: ntfy.sh/topic}", "http:// or https://"),
        ("retry: {burst: true}", "a number, not true"),
        ("retry: {max_attempts: 0}", "at least 1"),
        ("quality: {budget_share: 2}", "must be at most 1"),
        ("timeouts:", "fields below it"),
    ],
)
def test_a_mistake_is_said_in_words(text: str, part: str) -> None:
    assert part in " ".join(message for *_, message in problems(text))


def test_two_backends_may_share_ports_if_they_serve_different_models() -> None:
    config = fleet("[{name: x, host: a, ports: 1-5, serves: m}, {name: y, host: a, ports: 1-5, serves: n}]")
    assert len(config.backends) == 2


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(FleetFault, match="No such file"):
        load(tmp_path / "none.yaml", {})
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"- http://a:1\n# M\xfcller\n")
    with pytest.raises(FleetFault, match="line 2: not UTF-8"):
        load(latin, {})


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_bytes(b"\xef\xbb\xbf- http://a:1\n")
    assert load(path, {}).backends[0].name == "a-1"


def test_a_wrong_address_on_the_command_line_has_no_line() -> None:
    with pytest.raises(ConfigFault) as caught:
        from_urls(["http://a:1", "b:2"])
    assert "line" not in str(caught.value)
    assert isinstance(caught.value, FleetFault)
    assert caught.value.problems == (Problem(0, "backends[1].url", caught.value.problems[0].message),)


def test_contradictions_cannot_be_built_in_code_either() -> None:
    one = BackendConfig(name="x", url="http://a:1")
    with pytest.raises(ValueError, match="same address"):
        FleetConfig(backends=(one, one))


def test_the_schema_knows_every_field_and_both_forms_of_a_file() -> None:
    schema = json_schema()
    whole, bare = schema["anyOf"]
    assert set(whole["properties"]) == set(FleetConfig.model_fields)
    assert bare["type"] == "array"
    backend = schema["$defs"]["BackendConfig"]
    assert set(backend["properties"]) == set(BackendConfig.model_fields)
    assert backend["type"] == ["object", "string"]
    assert all(field["description"] for field in backend["properties"].values())


def test_a_wrong_address_is_one_mistake() -> None:
    assert len(problems("- http://a b:1")) == 1


# properties


def refusal(text: str) -> tuple[Problem, ...] | None:
    try:
        fleet(text)
    except FleetFault as fault:
        return fault.problems
    return None


@given(st.text(max_size=300))
def test_any_text_is_a_fleet_or_a_list_of_problems(text: str) -> None:
    said = refusal(text)
    assert said is None or said
    assert all(one.line >= 1 and one.message for one in said or ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=5), child, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from([*FleetConfig.model_fields, *BackendConfig.model_fields, *ModelConfig.model_fields])


@given(st.dictionaries(KNOWN, JSON | st.dictionaries(KNOWN, JSON) | st.lists(st.dictionaries(KNOWN, JSON), max_size=3)))
def test_wrong_values_are_problems_and_never_a_crash(raw: object) -> None:
    assert all(one.message for one in refusal(yaml.safe_dump(raw)) or ())


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=20))
def test_ports_keep_their_order_and_come_once(ports: list[int]) -> None:
    assert to_ports(list(ports)) == tuple(dict.fromkeys(ports))


@given(st.integers(0, 2**40))
def test_a_size_without_a_unit_is_bytes(count: int) -> None:
    assert to_bytes(str(count)) == to_bytes(f"{count} B") == count


@given(st.text(max_size=80))
def test_a_name_made_of_anything_is_a_valid_name(text: str) -> None:
    name = as_name(text)
    assert BackendConfig(name=name, url="http://a:1").name == name


@given(st.fixed_dictionaries({}, optional={"url": JSON, "host": JSON, "ports": JSON}))
def test_a_default_name_comes_of_anything(raw: dict[str, object]) -> None:
    assert default_name(raw)


@given(st.from_regex(r"https?://[a-z0-9-]{1,20}(:[1-9][0-9]{0,3})?/?", fullmatch=True))
def test_an_address_is_plain_once_it_was_made_plain(url: str) -> None:
    assert plain_url(plain_url(url)) == plain_url(url)


# what a reload would change


def test_the_same_config_changes_nothing() -> None:
    config = load(CONFIG / "fleet.yaml", {})
    assert not compare(config, config)
    assert str(compare(config, config)) == "nothing changes"


def test_a_difference_names_backends_fields_and_settings() -> None:
    old = fleet(
        "{backends: [{name: a, url: http://a:1}, {name: b, url: http://b:1, api_key: x}, http://c:1],"
        " aliases: {x: m}, models: {m: {canary: false}}}"
    )
    new = fleet(
        "{backends: [{name: a, url: http://a:2}, {name: b, url: http://b:1, api_key: y}, http://d:1],"
        " aliases: {y: m}, models: {m: {canary: true}}, timeouts: {queue_s: 1}, passive: true}"
    )
    assert compare(old, new) == ConfigDiff(
        added=("d-1",),
        removed=("c-1",),
        changed={"a": ("url",), "b": ("api_key",)},
        settings=("aliases.x", "aliases.y", "models.m.canary", "passive", "timeouts.queue_s"),
    )


URLS = st.lists(st.sampled_from([f"http://spark-{i}:8000" for i in range(6)]), unique=True)


@given(URLS, URLS)
def test_what_one_direction_adds_the_other_removes(first: list[str], second: list[str]) -> None:
    there, back = compare(from_urls(first), from_urls(second)), compare(from_urls(second), from_urls(first))
    assert (there.added, there.removed) == (back.removed, back.added)
    assert bool(there) == (set(first) != set(second))


def sections() -> list[type[Section]]:
    parts = [type(field.default) for field in FleetConfig.model_fields.values() if isinstance(field.default, Section)]
    backends = get_args(FleetConfig.model_fields["backends"].annotation)[0]
    return [FleetConfig, backends, ModelConfig, *parts]
