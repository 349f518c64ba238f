"""Certificates are read before a config counts, and every mistake in them is named with its file."""

from pathlib import Path

import pytest
import trustme

from router.config import BackendConfig, FleetConfig
from router.configsections import AccessConfig
from router.errors import ConfigFault
from router.tls import Certificates, check


def fleet(ca: Path | None = None, access: AccessConfig | None = None) -> FleetConfig:
    one = BackendConfig(name="spark", url="https://spark:8000", tls_ca=str(ca) if ca else None)
    return FleetConfig(backends=(one,), access=access or AccessConfig())


def access_of(folder: Path, authority: trustme.CA) -> AccessConfig:
    own = authority.issue_cert("localhost")
    own.private_key_pem.write_to_path(str(folder / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    return AccessConfig(tls_cert=str(folder / "cert.pem"), tls_key=str(folder / "key.pem"))


def test_right_files_pass(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    config = fleet(tmp_path / "ca.pem", access_of(tmp_path, authority))
    assert check(config) is config


def test_every_mistake_is_named_at_once_with_its_file(tmp_path: Path) -> None:
    access = access_of(tmp_path, trustme.CA())
    (tmp_path / "cert.pem").write_text("garbage")
    with pytest.raises(ConfigFault) as caught:
        check(fleet(tmp_path / "none.pem", access))
    assert f"spark: tls_ca: {tmp_path / 'none.pem'} cannot be read" in caught.value.message
    assert f"access: tls_cert, tls_key: {tmp_path / 'cert.pem'} holds no certificate" in caught.value.message


def test_a_key_of_another_certificate_is_a_mistake(tmp_path: Path) -> None:
    authority = trustme.CA()
    access = access_of(tmp_path, authority)
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    with pytest.raises(ConfigFault, match=r"cert\.pem"):
        check(fleet(access=access))


def test_a_context_stays_until_its_file_changes(tmp_path: Path) -> None:
    ca, certificates = tmp_path / "ca.pem", Certificates()
    trustme.CA().cert_pem.write_to_path(str(ca))
    first = certificates.to_backend(str(ca), True)
    assert certificates.to_backend(str(ca), True) is first
    ca.write_bytes(ca.read_bytes() + trustme.CA().cert_pem.bytes())
    assert certificates.to_backend(str(ca), True) is not first


def test_a_bound_port_cannot_become_https(tmp_path: Path) -> None:
    certificates, access = Certificates(), access_of(tmp_path, trustme.CA())
    assert certificates.renew(access), "nothing is bound yet"
    assert certificates.for_clients(AccessConfig()) is None
    assert certificates.renew(AccessConfig())
    assert not certificates.renew(access)
