"""Mutual TLS between real processes: who gets in, who does not, and what a rotation changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from worker_client import WorkerClient, WorkerStream
from worker_processes import WorkerProcess, start_worker
from worker_tls import CertificateAuthority, role_files, tls_flags, write_tls

from pdcluster_proto.v1 import admin_pb2, admin_pb2_grpc
from pdcluster_worker.splitwise.channel import SPLITWISE_LINK, open_channel
from pdcluster_worker.splitwise.tls import TLSIdentity, san

CLUSTER = "demo.default"
SIMULATED: dict[str, object] = {"runner": "Simulated", "block_size": 16, "kv_blocks": 512, "threads": 1}


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture
def router(tmp_path: Path, authority: CertificateAuthority) -> TLSIdentity:
    return identity(tmp_path, authority, "router")


def identity(folder: Path, authority: CertificateAuthority, role: str, cluster: str = CLUSTER) -> TLSIdentity:
    return TLSIdentity(role_files(folder / f"{role}-{cluster}", authority, role, cluster), cluster)


@contextlib.contextmanager
def secure_worker(folder: Path, authority: CertificateAuthority, role: str) -> Iterator[WorkerProcess]:
    files = role_files(folder / f"worker-{role}", authority, role, CLUSTER)
    with start_worker(role, cluster=CLUSTER, **tls_flags(files), **SIMULATED) as worker:
        yield worker


async def refused(address: str, role: str, who: TLSIdentity | None) -> grpc.StatusCode:
    """Opens Inference.Stream; how it was turned down."""
    stream = WorkerStream(address, role, who)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(stream.open(), 15)
        return caught.value.code()
    finally:
        await stream.close()


async def first_token(address: str, role: str, who: TLSIdentity) -> int:
    async with WorkerClient([address], [role], who) as client:
        return (await client.generate([1, 2, 3], max_tokens=1)).tokens[0]


def test_who_gets_in(tmp_path: Path, authority: CertificateAuthority, router: TLSIdentity) -> None:
    stranger = CertificateAuthority("stranger")
    with secure_worker(tmp_path, authority, "mixed") as worker:
        address = worker.address
        assert asyncio.run(first_token(address, "mixed", router)) >= 0
        assert asyncio.run(refused(address, "mixed", None)) is grpc.StatusCode.UNAVAILABLE
        wrong_authority = identity(tmp_path / "strange", stranger, "router")
        assert asyncio.run(refused(address, "mixed", wrong_authority)) is grpc.StatusCode.UNAVAILABLE
        for role, cluster in (("prefill", CLUSTER), ("operator", CLUSTER), ("router", "other.default")):
            other = identity(tmp_path, authority, role, cluster)
            if cluster != CLUSTER:
                other = _expecting(other, router)
            assert asyncio.run(refused(address, "mixed", other)) is grpc.StatusCode.PERMISSION_DENIED
        assert asyncio.run(refused(address, "decode", router)) is grpc.StatusCode.UNAVAILABLE, "not a decode worker"
        assert asyncio.run(first_token(address, "mixed", router)) >= 0
        worker.check_nothing_held()


def _expecting(who: TLSIdentity, names: TLSIdentity) -> TLSIdentity:
    """`who`'s certificate, but content with the server names of another cluster."""
    who.target_name = names.target_name  # type: ignore[method-assign]
    return who


def test_an_expired_certificate_is_refused(
    tmp_path: Path, authority: CertificateAuthority, router: TLSIdentity
) -> None:
    expired = authority.leaf(san("router", CLUSTER), expired=True)
    late = TLSIdentity(write_tls(tmp_path / "expired", authority.pem, expired), CLUSTER)
    with secure_worker(tmp_path, authority, "mixed") as worker:
        assert asyncio.run(refused(worker.address, "mixed", late)) is grpc.StatusCode.UNAVAILABLE
        assert asyncio.run(first_token(worker.address, "mixed", router)) >= 0


def test_links_are_for_prefill_workers_only(tmp_path: Path, authority: CertificateAuthority) -> None:
    async def hello(address: str, who: TLSIdentity) -> grpc.StatusCode:
        async with open_channel(address, "decode", who) as channel:
            call = channel.stream_stream(SPLITWISE_LINK)(iter([b"\xff\xff garbage"]))
            return await asyncio.wait_for(call.code(), 15)

    with secure_worker(tmp_path, authority, "decode") as worker:
        for role in ("router", "decode", "operator"):
            who = identity(tmp_path, authority, role)
            assert asyncio.run(hello(worker.address, who)) is grpc.StatusCode.PERMISSION_DENIED
        prefill = identity(tmp_path, authority, "prefill")
        assert asyncio.run(hello(worker.address, prefill)) is grpc.StatusCode.INVALID_ARGUMENT


@contextlib.asynccontextmanager
async def admin(address: str, role: str, who: TLSIdentity) -> AsyncIterator[admin_pb2_grpc.AdminStub]:
    async with open_channel(address, role, who) as channel:
        yield admin_pb2_grpc.AdminStub(channel)


def test_admin_is_for_the_operator_and_the_own_pod(tmp_path: Path, authority: CertificateAuthority) -> None:
    async def describe(address: str, who: TLSIdentity) -> str:
        async with admin(address, "mixed", who) as stub:
            try:
                return str((await stub.Describe(admin_pb2.DescribeRequest(), timeout=15)).name)
            except grpc.aio.AioRpcError as error:
                return error.code().name

    with secure_worker(tmp_path, authority, "mixed") as worker:
        assert asyncio.run(describe(worker.address, identity(tmp_path, authority, "operator"))) == "mixed"
        assert asyncio.run(describe(worker.address, identity(tmp_path, authority, "mixed"))) == "mixed"
        assert asyncio.run(describe(worker.address, identity(tmp_path, authority, "router"))) == "PERMISSION_DENIED"
        assert asyncio.run(describe(worker.address, identity(tmp_path, authority, "decode"))) == "PERMISSION_DENIED"


def test_a_pair_hands_over_under_tls_and_keeps_going_through_a_rotation(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    """Old authority, then both, then only the new one: at every step new connections get in."""
    fresh = CertificateAuthority("fresh ca")
    both = authority.pem + fresh.pem

    async def generate(prefill: WorkerProcess, decode: WorkerProcess, who: TLSIdentity) -> list[int]:
        async with WorkerClient([prefill.address, decode.address], ["prefill", "decode"], who) as client:
            generation = await client.generate(list(range(40)), max_tokens=6)
            assert generation.handed_off is not None
            return generation.tokens

    def rotate(ca: bytes, signer: CertificateAuthority) -> None:
        for role in ("prefill", "decode", "router"):
            folder = tmp_path / ("router-" + CLUSTER if role == "router" else f"worker-{role}")
            write_tls(folder, ca, signer.leaf(san(role, CLUSTER)))

    who = identity(tmp_path, authority, "router")
    with (
        secure_worker(tmp_path, authority, "prefill") as prefill,
        secure_worker(tmp_path, authority, "decode") as decode,
    ):
        before = asyncio.run(generate(prefill, decode, who))
        old = CertificateAuthority.leaf(authority, san("router", CLUSTER))
        rotate(both, authority)
        assert asyncio.run(generate(prefill, decode, who)) == before
        rotate(both, fresh)
        assert asyncio.run(generate(prefill, decode, who)) == before
        rotate(fresh.pem, fresh)
        assert asyncio.run(generate(prefill, decode, who)) == before
        outdated = TLSIdentity(write_tls(tmp_path / "old", both, old), CLUSTER)
        assert asyncio.run(refused(decode.address, "decode", outdated)) is grpc.StatusCode.UNAVAILABLE
        prefill.check_nothing_held()
        decode.check_nothing_held()
