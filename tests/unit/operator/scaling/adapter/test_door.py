"""TLS handshakes in memory: who is let in, and what changes while others are inside."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pdcluster_operator.certificates import Authority, Pair
from pdcluster_operator.scaling.adapter.callers import Callers
from pdcluster_operator.scaling.adapter.door import Door

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
SERVICE = "adapter.system.svc"


def authority(name: str = "front") -> Authority:
    return Authority(name, NOW, DAY)


FRONT, OTHER, OURS = authority(), authority("other"), authority("adapter")


def leaf() -> Pair:
    return OURS.issue([SERVICE], [], NOW, DAY)


def trust(signer: Authority = FRONT, *names: str) -> Callers:
    return Callers(signer.certificate.decode(), names)


@pytest.fixture
def door() -> Door:
    made = Door()
    made.show(leaf())
    made.expect(trust(FRONT, "front-proxy-client"))
    return made


def call(door: Door, folder: Path, signer: Authority | None, name: str = "front-proxy-client") -> ssl.SSLObject:
    """The server's end of a finished handshake; raises ssl.SSLError when either end refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=OURS.certificate.decode())
    if signer:
        pair = signer.issue([name], [], NOW, DAY)
        (folder / "crt").write_bytes(pair.certificate)
        (folder / "key").write_bytes(pair.key)
        context.load_cert_chain(folder / "crt", folder / "key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname=SERVICE)
    server = door.front.wrap_bio(there, back, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    server.do_handshake()
    return server


def test_the_front_proxy_is_admitted(door: Door, tmp_path: Path) -> None:
    assert door.admits(call(door, tmp_path, FRONT)) is True


@pytest.mark.parametrize("signer", [None, OTHER], ids=["without a certificate", "of another authority"])
def test_nobody_else_gets_through_the_handshake(door: Door, tmp_path: Path, signer: Authority | None) -> None:
    with pytest.raises(ssl.SSLError):
        call(door, tmp_path, signer)


def test_another_name_of_the_same_authority_is_not_admitted(door: Door, tmp_path: Path) -> None:
    assert door.admits(call(door, tmp_path, FRONT, name="somebody")) is False


def test_a_connection_without_tls_is_not_admitted(door: Door) -> None:
    assert door.admits(None) is False


def test_the_certificate_is_replaced_without_dropping_anybody(door: Door, tmp_path: Path) -> None:
    inside = call(door, tmp_path, FRONT)
    door.show(leaf())
    assert door.admits(inside) is True
    assert door.admits(call(door, tmp_path, FRONT)) is True


def test_a_new_authority_ends_the_old_ones_trust(door: Door, tmp_path: Path) -> None:
    inside = call(door, tmp_path, FRONT)
    door.expect(trust(OTHER))
    assert door.admits(inside) is None, "it must come again"
    assert door.admits(call(door, tmp_path, OTHER)) is True
    with pytest.raises(ssl.SSLError):
        call(door, tmp_path, FRONT)


def test_until_it_is_known_who_calls_nobody_is_let_in(door: Door, tmp_path: Path) -> None:
    inside = call(door, tmp_path, FRONT)
    door.expect(None)
    assert not door.is_open
    assert door.admits(inside) is False
    with pytest.raises(ssl.SSLError):
        call(door, tmp_path, FRONT)


def test_a_door_without_a_certificate_is_closed(tmp_path: Path) -> None:
    closed = Door()
    closed.expect(trust())
    assert not closed.is_open
    with pytest.raises(ssl.SSLError):
        call(closed, tmp_path, FRONT)
