from pathlib import Path

import pytest
from worker_tls import CertificateAuthority, role_files, write_tls

from pdcluster_worker.config import TLSFiles
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.splitwise.incoming import is_local
from pdcluster_worker.splitwise.tls import SAN_KEY, TLSIdentity, san

CLUSTER = "demo.default"


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority()


def test_names_of_roles() -> None:
    assert san("decode", CLUSTER) == "decode.demo.default.pdcluster"


@pytest.mark.parametrize("missing", ["cert", "key", "ca"])
def test_a_missing_file_is_named(tmp_path: Path, authority: CertificateAuthority, missing: str) -> None:
    files = role_files(tmp_path, authority, "router", CLUSTER)
    path: Path = getattr(files, missing)
    path.unlink()
    with pytest.raises(ConfigError, match=str(path)):
        TLSIdentity(files, CLUSTER)


@pytest.mark.parametrize("broken", ["cert", "key", "ca"])
def test_a_broken_file_is_named(tmp_path: Path, authority: CertificateAuthority, broken: str) -> None:
    files = role_files(tmp_path, authority, "router", CLUSTER)
    path: Path = getattr(files, broken)
    path.write_bytes(b"no PEM")
    with pytest.raises(ConfigError, match=str(path)):
        TLSIdentity(files, CLUSTER)


def test_the_key_must_be_the_certificates(tmp_path: Path, authority: CertificateAuthority) -> None:
    files = role_files(tmp_path, authority, "router", CLUSTER)
    files.key.write_bytes(authority.leaf("other").key)
    with pytest.raises(ConfigError, match=r"not the key of"):
        TLSIdentity(files, CLUSTER)


def test_the_cluster_is_needed(tmp_path: Path, authority: CertificateAuthority) -> None:
    with pytest.raises(ConfigError, match="--cluster"):
        TLSIdentity(role_files(tmp_path, authority, "router", CLUSTER), "")


def test_files_are_followed_and_half_a_rotation_is_passed_over(
    tmp_path: Path, authority: CertificateAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    files = role_files(tmp_path, authority, "router", CLUSTER)
    identity = TLSIdentity(files, CLUSTER)
    first = identity.current()
    fresh = authority.leaf(san("router", CLUSTER))
    files.cert.write_bytes(fresh.cert)
    assert identity.current() == first, "the new certificate's key is not there yet"
    files.key.write_bytes(fresh.key)
    assert identity.current().cert == fresh.cert
    files.ca.unlink()
    assert identity.current().cert == fresh.cert
    write_tls(tmp_path, authority.pem, authority.leaf(san("router", CLUSTER)))
    assert identity.current().cert != fresh.cert
    capsys.readouterr()


def test_only_roles_of_this_cluster_are_allowed(tmp_path: Path, authority: CertificateAuthority) -> None:
    files: TLSFiles = role_files(tmp_path, authority, "decode", CLUSTER)
    identity = TLSIdentity(files, CLUSTER)

    def context(*names: str) -> dict[str, list[bytes]]:
        return {SAN_KEY: [name.encode() for name in names]}

    assert identity.allows(context("127.0.0.1", "prefill.demo.default.pdcluster"), ["prefill"])
    assert identity.allows(context("router.demo.default.pdcluster"), ["prefill", "router"])
    assert not identity.allows(context("router.demo.default.pdcluster"), ["prefill"])
    assert not identity.allows(context("prefill.demo.other.pdcluster"), ["prefill"])
    assert not identity.allows(context("prefill.demo.default.pdcluster.evil"), ["prefill"])
    assert not identity.allows({}, ["prefill"])


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("ipv6:[::1]:4711", True),
        ("ipv4:203.0.113.9:4711", False),
        ("unix:/tmp/socket", False),
        ("", False),
    ],
)
def test_who_is_on_this_machine(peer: str, local: bool) -> None:
    assert is_local(peer) is local
