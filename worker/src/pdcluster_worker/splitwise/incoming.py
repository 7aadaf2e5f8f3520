"""Reading a stream: raw messages in, with the right ending for a peer that breaks the rules."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote

import grpc
import grpc.aio
import psutil
import structlog

from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise.outbound import SlowPeerError
from pdcluster_worker.splitwise.tls import OPERATOR, TLSIdentity

log = structlog.get_logger(__name__)

HELLO_TIMEOUT = 10.0
"""Seconds for the first message of a stream."""

TURN_AWAY_TIMEOUT = 1.0

MISMATCHES = frozenset({"version", "layout", "model", "revision"})

ServerContext = grpc.aio.ServicerContext[bytes, bytes]


class ProtocolErrorCounter(Protocol):
    def protocol_error(self, peer_kind: str, reason: str) -> None: ...


class LinkCounter(ProtocolErrorCounter, Protocol):
    def link_lost(self, peer_kind: str, reason: str) -> None:
        """`reason` as of `why_lost`."""
        ...


def why_lost(error: BaseException | None) -> str:
    """closed: the peer ended the link in good order; silent, slow, protocol, or broken: the connection failed."""
    if error is None:
        return "closed"
    if isinstance(error, TimeoutError):
        return "silent"
    if isinstance(error, SlowPeerError):
        return "slow"
    return "protocol" if isinstance(error, ProtocolError) else "broken"


async def read_message(read: Callable[[], Awaitable[Any]]) -> bytes | None:
    """The next message; None at the end of the stream."""
    message = await read()
    return message if isinstance(message, bytes) else None


async def read_hello(read: Callable[[], Awaitable[Any]]) -> bytes:
    """The first message. Raises ProtocolError when it does not come in time."""
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            message = await read_message(read)
    except TimeoutError as error:
        raise ProtocolError(f"no first message within {HELLO_TIMEOUT:g} s", "order") from error
    if message is None:
        raise ProtocolError("the stream ended before its first message", "order")
    return message


async def authorise(context: ServerContext, identity: TLSIdentity | None, roles: Iterable[str]) -> None:
    """Ends the call unless the peer's certificate names one of `roles`. Without TLS everybody may."""
    if identity is None or identity.allows(context.auth_context(), roles):
        return
    log.warning("peer_not_authorised", peer=context.peer(), allowed=sorted(roles))
    await turn_away(context, grpc.StatusCode.PERMISSION_DENIED, f"only for {', '.join(sorted(roles))} of this cluster")


async def turn_away(context: ServerContext, code: grpc.StatusCode, reason: str) -> NoReturn:
    """Ends a stream before it has begun. A peer that is still writing its first message may finish that: cut off in
    the middle it would see an error of its own transport instead of `reason`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TURN_AWAY_TIMEOUT):
            await context.read()
    await context.abort(code, reason)


async def authorise_admin(
    context: "grpc.aio.ServicerContext[Any, Any]", identity: TLSIdentity | None, own_role: str
) -> None:
    """Admin is for the operator, and for the own pod: the own role's certificate, from an address of this machine."""
    if identity is None or identity.allows(context.auth_context(), (OPERATOR,)):
        return
    if own_role and identity.allows(context.auth_context(), (own_role,)) and is_local(context.peer()):
        return
    log.warning("peer_not_authorised", peer=context.peer(), service="Admin")
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only for the operator and the own pod")


def is_local(peer: str) -> bool:
    """Does a peer as gRPC names it, such as ipv4:127.0.0.1:4711, connect from this pod?"""
    address = unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")
    try:
        if ipaddress.ip_address(address).is_loopback:
            return True
    except ValueError:
        return False
    own = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
    return address in own


def status_of(error: ProtocolError) -> grpc.StatusCode:
    """A peer that is merely different gets FAILED_PRECONDITION, one that breaks the rules INVALID_ARGUMENT."""
    return grpc.StatusCode.FAILED_PRECONDITION if error.kind in MISMATCHES else grpc.StatusCode.INVALID_ARGUMENT


async def guarded(context: ServerContext, peer_kind: str, errors: ProtocolErrorCounter, serve: Awaitable[None]) -> None:
    """Runs one call; a peer that breaks the rules, or does not read, is counted, told why and disconnected."""
    try:
        await serve
    except ProtocolError as error:
        errors.protocol_error(peer_kind, error.kind)
        log.warning("protocol_error", peer=context.peer(), peer_kind=peer_kind, kind=error.kind, reason=str(error))
        await context.abort(status_of(error), str(error))
    except SlowPeerError as error:
        log.warning("slow_peer", peer=context.peer(), peer_kind=peer_kind, reason=str(error))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
