"""Certificates: what backends are checked against, and what clients are shown. Read from files, anew at each reload."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from router.config import FleetConfig
from router.configsections import AccessConfig
from router.errors import ConfigFault

Stamp = tuple[int, int] | None
"""A file's time (nanoseconds) and size: another stamp is another content."""


class Certificates:
    """Contexts for both sides. A renewed file counts for new connections only: what runs goes on."""

    def __init__(self) -> None:
        self._backends: dict[tuple[str | None, bool, Stamp], ssl.SSLContext] = {}
        self._clients: ssl.SSLContext | None = None
        self._is_bound = False

    def to_backend(self, ca: str | None, verify: bool) -> ssl.SSLContext:
        """The context for a backend: the same one as long as its authority's file stays as it is.

        Args:
            ca: file with the authority's certificates (PEM); None: the system's.
            verify: whether the certificate is checked at all.

        Raises:
            OSError, ssl.SSLError: the file cannot be read, or holds no certificate; `check` says so before.
        """
        key = (ca, verify, _stamp(ca))
        found = self._backends.get(key)
        if found is None:
            self._backends = {k: one for k, one in self._backends.items() if k[:2] != key[:2]}
            found = self._backends[key] = _verifying(ca, verify)
        return found

    def for_clients(self, access: AccessConfig) -> ssl.SSLContext | None:
        """The context that the client port is bound with, None for plain http."""
        self._is_bound = True
        if access.tls_cert is not None:
            self._clients = _showing(access)
        return self._clients

    def renew(self, access: AccessConfig) -> bool:
        """Show clients that come from now on what lies in the files now.

        Returns False where the config asks for what a bound port cannot become: https where it is http, or the reverse.
        """
        if self._clients is not None and access.tls_cert is not None:
            self._clients.load_cert_chain(access.tls_cert, access.tls_key)
        return not self._is_bound or (self._clients is None) == (access.tls_cert is None)


def check(config: FleetConfig) -> FleetConfig:
    """Read every certificate that a config names, and return the config.

    Raises:
        ConfigFault: one is missing or is none; every mistake is in the message, with its path.
    """
    wrongs = [_wrong(f"{one.name}: tls_ca", one.tls_ca, partial(_verifying, one.tls_ca)) for one in config.backends]
    access = config.access
    if access.tls_cert is not None:
        wrongs.append(_wrong("access: tls_cert, tls_key", access.tls_cert, partial(_showing, access)))
    told = [wrong for wrong in wrongs if wrong]
    if told:
        raise ConfigFault("; ".join(told))
    return config


def _wrong(setting: str, path: str | None, read: Callable[[], object]) -> str:
    """What is wrong with a file, "" where nothing is."""
    if path is None:
        return ""
    try:
        read()
    except ssl.SSLError as problem:
        return f"{setting}: {path} holds no certificate (or no key of it) in PEM: {problem.reason or problem}"
    except OSError as problem:
        return f"{setting}: {problem.filename or path} cannot be read: {problem.strerror or problem}"
    return ""


def _stamp(path: str | None) -> Stamp:
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found is not None else None


def _verifying(ca: str | None, verify: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _showing(access: AccessConfig) -> ssl.SSLContext:
    assert access.tls_cert is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(access.tls_cert, access.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context
