"""What the process takes from its environment: addresses, paths, the admin token. The fleet itself is in its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from router.errors import ConfigFault

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Settings of one router process, each from `ROUTER_<NAME>` or a flag of `router serve`; a flag wins."""

    model_config = SettingsConfigDict(
        env_prefix="ROUTER_",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    host: str = "0.0.0.0"
    """Address that clients reach; all interfaces by default. `127.0.0.1` for this machine alone."""
    port: Port = 8080
    """Port for clients. 0 takes any free one."""
    admin_host: str = "127.0.0.1"
    """Address of the admin side (dashboard, commands). The container image sets `0.0.0.0`."""
    admin_port: Port = 8081
    """Port of the admin side. 0 takes any free one."""
    config: Path | None = None
    """Fleet file. Without one, `router serve --backend URL` says what there is."""
    admin_token: SecretStr | None = None
    """Token of the admin side. Default: the first start makes one and keeps it in the state directory (0600)."""
    state_dir: Path = Field(default_factory=lambda: platformdirs.user_state_path("spark-router"))
    """Directory for what survives a restart: history and token."""
    history_path: Path | None = None
    """File of the history (SQLite). Default: `history.sqlite` in the state directory."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important kind of line that is logged."""
    log_file: str = "-"
    """Where log lines go: a file, or `-` for standard output."""
    watch: bool = False
    """Reload when the fleet file changes on disk."""
    passive: bool = False
    """Observe, never act; also settable in the fleet file, either is enough."""
    allow_hosts: str = ""
    """More names, separated by commas, under which the admin side may be opened (its Host header is checked)."""

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Return the additional names of the admin side, one by one."""
        return tuple(name.strip() for name in self.allow_hosts.split(",") if name.strip())

    @property
    def history_file(self) -> Path:
        """Return where the history is kept."""
        return self.history_path or self.state_dir / "history.sqlite"

    @property
    def token_file(self) -> Path:
        """Return where the admin token is kept."""
        return self.state_dir / "admin-token"

    @property
    def admin_url(self) -> str:
        """Return the address under which commands on this machine reach the admin side."""
        host = "127.0.0.1" if self.admin_host in ("0.0.0.0", "::", "") else self.admin_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.admin_port}"


def read_settings(**given: object) -> Settings:
    """Read the settings; what is given here (flags; None counts as not given) wins over the environment.

    Raises:
        ConfigFault: a value is wrong; every mistake, with the name of its variable.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigFault("\n".join(map(in_words, error.errors(include_url=False)))) from error


def in_words(error: ErrorDetails) -> str:
    """Return one wrong setting as a sentence; the value itself is left out, it may be a token."""
    name = str(error["loc"][0]) if error["loc"] else "settings"
    message = error["msg"].replace("Input should be", "must be")
    return f"ROUTER_{name.upper()} or --{name.replace('_', '-')}: {message}"


def unknown_settings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of variables that look like settings and are none, as after a typing mistake."""
    known = {f"ROUTER_{name.upper()}" for name in Settings.model_fields} | {"ROUTER_ADMIN_URL"}
    return tuple(sorted(name for name in environ if name.startswith("ROUTER_") and name.upper() not in known))
