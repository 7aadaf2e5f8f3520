"""What follows the handshake of a link, to and from bytes.

Sending starts from the core's effects, receiving ends in the core's events, in the order in which they take effect.
`read_*` raise ProtocolError; `encode_*` return messages of about 1 MiB at most, in order.
"""

from pdcluster_proto.v1 import splitwise_pb2 as pb
from pdcluster_worker.core import events
from pdcluster_worker.core.effects import ReserveOut, ToDecode, ToPrefill
from pdcluster_worker.core.ids import LeaseId, PeerId
from pdcluster_worker.core.wire import RefuseReason
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise import checks, limits
from pdcluster_worker.splitwise.handshake_codec import read_heartbeat, write_heartbeat
from pdcluster_worker.splitwise.request_codec import (
    deadline_from,
    pack_words,
    read_outputs,
    read_request,
    remaining_ms,
    unpack_words,
    write_output,
    write_request,
)
from pdcluster_worker.splitwise.splitter import Splitter

HASH_BYTES = 32
NOTE_BYTES = 64
"""A part of a few numbers and a request id, at most."""
REQUEST_BYTES = 512
"""A request besides its tokens."""
OUTPUT_BYTES = 320


def encode_to_decode(out: ToDecode, now: float) -> list[bytes]:
    """`now` on the clock of the requests' deadlines."""
    splitter = Splitter(pb.PrefillMessage)
    for commit in out.commits:
        sampling = commit.request.sampling
        extra = 8 * len(sampling.logit_bias_ids) + 5 * len(sampling.stop_token_ids)
        size = len(commit.request.tokens) + extra + OUTPUT_BYTES * len(commit.outputs) + REQUEST_BYTES
        item = splitter.room(size).commits.add(
            lease_id=commit.lease, completed_ranks=commit.completed_ranks, transferred_bytes=commit.transferred_bytes
        )
        write_request(commit.request, item.request, now)
        for output in commit.outputs:
            write_output(output, item.outputs.add())
    for closed in out.writes_closed:
        splitter.room(NOTE_BYTES).writes_closed.add(
            lease_id=closed.lease, epoch=closed.epoch, write_failed=closed.write_failed
        )
    for release in out.releases:
        splitter.room(NOTE_BYTES).releases.add(
            request_id=release.key.request_id,
            epoch=release.key.epoch,
            lease_id=release.lease,
            writes_closed=release.writes_closed,
            aborted=release.aborted,
            write_failed=release.write_failed,
        )
    for reserve in out.reserves:
        _add_reserve(reserve, splitter.room(len(reserve.block_hashes) + NOTE_BYTES), now)
    if out.heartbeat is not None:
        write_heartbeat(out.heartbeat, splitter.room(8 * len(out.heartbeat.lease_ids) + NOTE_BYTES).heartbeat)
    return splitter.finish()


def read_from_prefill(data: bytes, peer: PeerId, now: float) -> list[events.Event]:
    """What a prefill worker sends, for this decode worker's core."""
    message = checks.parse(pb.PrefillMessage, data)
    checks.first_alone(message.HasField("hello"), False, "hello")
    for field in ("commits", "writes_closed", "releases", "reserves"):
        checks.bounded(getattr(message, field), limits.MAX_ITEMS, field)
    found: list[events.Event] = [_commit(item, peer, now) for item in message.commits]
    found.extend(
        events.WritesClosed(peer=peer, lease=LeaseId(item.lease_id), epoch=item.epoch, write_failed=item.write_failed)
        for item in message.writes_closed
    )
    found.extend(
        events.Released(
            peer=peer,
            key=checks.key(item.request_id, item.epoch),
            lease=LeaseId(item.lease_id),
            writes_closed=item.writes_closed,
            aborted=item.aborted,
            write_failed=item.write_failed,
        )
        for item in message.releases
    )
    found.extend(_reserve(item, peer, now) for item in message.reserves)
    if message.HasField("heartbeat"):
        found.append(events.PrefillHeartbeat(peer=peer, heartbeat=read_heartbeat(message.heartbeat)))
    return found


def encode_to_prefill(out: ToPrefill) -> list[bytes]:
    splitter = Splitter(pb.DecodeMessage)
    for grant in out.grants:
        request_id, epoch = grant.key
        splitter.room(4 * len(grant.block_ids) + NOTE_BYTES).grants.add(
            request_id=request_id,
            epoch=epoch,
            lease_id=grant.lease,
            ttl_ms=round(grant.ttl * 1000),
            matched_blocks=grant.matched_blocks,
            block_ids=pack_words(grant.block_ids),
        )
    for key in out.queued:
        splitter.room(NOTE_BYTES).queued.add(request_id=key.request_id, epoch=key.epoch)
    for refusal in out.refusals:
        splitter.room(NOTE_BYTES).refusals.add(
            request_id=refusal.key.request_id,
            epoch=refusal.key.epoch,
            reason=int(refusal.reason),
            retry_after_ms=round(refusal.retry_after * 1000),
            lease_id=refusal.lease,
        )
    for done in out.committed:
        splitter.room(NOTE_BYTES).committed.add(
            request_id=done.key.request_id, epoch=done.key.epoch, lease_id=done.lease
        )
    for lost in out.leases_lost:
        reason = lost.reason[: limits.MAX_REASON]
        splitter.room(len(reason) + NOTE_BYTES).leases_lost.add(
            lease_id=lost.lease, request_id=lost.key.request_id, epoch=lost.key.epoch, reason=reason
        )
    if out.credits is not None:
        _write_credits(out, splitter.room(NOTE_BYTES))
    if out.heartbeat is not None:
        write_heartbeat(out.heartbeat, splitter.room(8 * len(out.heartbeat.lease_ids) + NOTE_BYTES).heartbeat)
    return splitter.finish()


def read_from_decode(data: bytes, peer: PeerId) -> list[events.Event]:
    """What a decode worker sends, for this prefill worker's core."""
    message = checks.parse(pb.DecodeMessage, data)
    checks.first_alone(message.HasField("welcome"), False, "welcome")
    for field in ("grants", "queued", "refusals", "committed", "leases_lost"):
        checks.bounded(getattr(message, field), limits.MAX_ITEMS, field)
    found: list[events.Event] = [_grant(item, peer) for item in message.grants]
    found.extend(events.QueuedThere(peer=peer, key=checks.key(item.request_id, item.epoch)) for item in message.queued)
    found.extend(_refusal(item, peer) for item in message.refusals)
    found.extend(
        events.CommitAccepted(peer=peer, key=checks.key(item.request_id, item.epoch), lease=LeaseId(item.lease_id))
        for item in message.committed
    )
    found.extend(
        events.LeaseEnded(
            peer=peer,
            lease=LeaseId(item.lease_id),
            key=checks.key(item.request_id, item.epoch),
            reason=checks.bounded(item.reason, limits.MAX_REASON, "leases_lost.reason"),
        )
        for item in message.leases_lost
    )
    if message.HasField("credits"):
        found.append(_credits(message.credits, peer))
    if message.HasField("heartbeat"):
        found.append(events.DecodeHeartbeat(peer=peer, heartbeat=read_heartbeat(message.heartbeat)))
    return found


def _add_reserve(reserve: ReserveOut, message: pb.PrefillMessage, now: float) -> None:
    message.reserves.add(
        request_id=reserve.key.request_id,
        epoch=reserve.key.epoch,
        tokens=reserve.tokens,
        blocks=reserve.blocks,
        block_hashes=reserve.block_hashes,
        deadline_ms=remaining_ms(reserve.deadline, now),
        queue=reserve.queue,
    )


def _reserve(item: pb.Reserve, peer: PeerId, now: float) -> events.ReserveAsked:
    if len(item.block_hashes) % HASH_BYTES:
        raise ProtocolError("block_hashes: no whole number of hashes", "malformed")
    checks.bounded(item.block_hashes, HASH_BYTES * limits.MAX_REQUEST_BLOCKS, "block_hashes")
    return events.ReserveAsked(
        peer=peer,
        key=checks.key(item.request_id, item.epoch),
        tokens=checks.at_most(item.tokens, limits.MAX_REQUEST_TOKENS, "tokens"),
        blocks=checks.at_most(item.blocks, limits.MAX_REQUEST_BLOCKS, "blocks"),
        block_hashes=item.block_hashes,
        deadline=deadline_from(item.deadline_ms, now),
        queue=item.queue,
    )


def _commit(item: pb.Commit, peer: PeerId, now: float) -> events.CommitAsked:
    return events.CommitAsked(
        peer=peer,
        lease=LeaseId(item.lease_id),
        request=read_request(item.request, now),
        outputs=read_outputs(item.outputs),
        completed_ranks=checks.at_most(item.completed_ranks, limits.MAX_RANKS, "completed_ranks"),
        transferred_bytes=item.transferred_bytes,
    )


def _grant(item: pb.Grant, peer: PeerId) -> events.Granted:
    return events.Granted(
        peer=peer,
        key=checks.key(item.request_id, item.epoch),
        lease=LeaseId(item.lease_id),
        ttl=item.ttl_ms / 1000,
        matched_blocks=item.matched_blocks,
        block_ids=unpack_words(checks.packed_words(item.block_ids, limits.MAX_REQUEST_BLOCKS, "block_ids")),
    )


def _refusal(item: pb.Refuse, peer: PeerId) -> events.Refused:
    try:
        reason = RefuseReason(item.reason)
    except ValueError as error:
        raise ProtocolError(f"refusals.reason: {error}", "malformed") from error
    return events.Refused(
        peer=peer,
        key=checks.key(item.request_id, item.epoch),
        reason=reason,
        retry_after=item.retry_after_ms / 1000,
        lease=LeaseId(item.lease_id),
    )


def _write_credits(out: ToPrefill, message: pb.DecodeMessage) -> None:
    if out.credits is not None:
        message.credits.sequence = out.credits.sequence
        message.credits.blocks = out.credits.blocks
        message.credits.requests = out.credits.requests
        message.credits.draining = out.credits.draining


def _credits(message: pb.Credits, peer: PeerId) -> events.CreditsChanged:
    return events.CreditsChanged(
        peer=peer,
        sequence=message.sequence,
        blocks=message.blocks,
        requests=message.requests,
        draining=message.draining,
    )
