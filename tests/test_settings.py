"""The process's own settings: from the environment, with sane defaults, secrets unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

from router.errors import ConfigFault
from router.settings import Settings, read_settings, unknown_settings


def settings(**environ: str) -> Settings:
    class Handed(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type, **_: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            source = EnvSettingsSource(settings_cls)
            source.env_vars = {name.lower(): value for name, value in environ.items()}
            return (source,)

    return Handed()


def test_nothing_has_to_be_set() -> None:
    plain = settings()
    assert (plain.host, plain.port) == ("0.0.0.0", 8080)
    assert (plain.admin_host, plain.admin_port) == ("127.0.0.1", 8081)
    assert plain.config is None
    assert plain.log_file == "-"
    assert plain.history_file == plain.state_dir / "history.sqlite"


def test_everything_can_be_set_from_the_environment() -> None:
    given = settings(ROUTER_PORT="9000", ROUTER_CONFIG="/etc/fleet.yaml", ROUTER_WATCH="true", ROUTER_HISTORY_PATH="/h")
    assert (given.port, given.config, given.watch) == (9000, Path("/etc/fleet.yaml"), True)
    assert given.history_file == Path("/h")


def test_a_token_is_not_shown() -> None:
    given = settings(ROUTER_ADMIN_TOKEN="s3cret")
    assert "s3cret" not in repr(given)
    assert given.admin_token is not None
    assert given.admin_token.get_secret_value() == "s3cret"


@pytest.mark.parametrize(("name", "value"), [("ROUTER_PORT", "99999"), ("ROUTER_LOG_LEVEL", "loud")])
def test_a_wrong_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        settings(**{name: value})


def test_wrong_flags_are_said_all_at_once_and_by_name() -> None:
    with pytest.raises(ConfigFault) as caught:
        read_settings(port=99999, log_level="loud", admin_port=None)
    assert "ROUTER_PORT or --port: must be less than or equal to 65535" in caught.value.message
    assert "ROUTER_LOG_LEVEL" in caught.value.message
    assert "ADMIN" not in caught.value.message


def test_a_flag_that_is_not_given_leaves_the_default() -> None:
    assert read_settings(port=1234, host=None).port == 1234


def test_a_mistyped_variable_is_noticed() -> None:
    assert unknown_settings({"ROUTER_PROT": "1", "ROUTER_PORT": "2", "PATH": "3"}) == ("ROUTER_PROT",)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8081"), ("::1", "http://[::1]:8081"), ("box", "http://box:8081")],
)
def test_commands_reach_the_admin_side_at_one_address(host: str, url: str) -> None:
    assert settings(ROUTER_ADMIN_HOST=host).admin_url == url


def test_more_names_of_the_admin_side_are_split_at_commas() -> None:
    assert settings(ROUTER_ALLOW_HOSTS="spark-1.local, box ,").allowed_hosts == ("spark-1.local", "box")


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())
