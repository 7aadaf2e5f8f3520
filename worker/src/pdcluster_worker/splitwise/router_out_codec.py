"""The part of a WorkerMessage that a core makes: tokens by column, and notes about requests."""

from pdcluster_proto.v1 import inference_pb2 as pb
from pdcluster_proto.v1.request_pb2 import TokenBatch
from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote, ReservedNote, RouterOut
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import FailureCode, Stages
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise import checks, limits
from pdcluster_worker.splitwise.request_codec import read_logprobs, write_logprobs
from pdcluster_worker.splitwise.splitter import Splitter

TOKEN_BYTES = 18
"""At most; also keeps the tokens of a full message under MAX_ITEMS."""
LOGPROB_BYTES = 16 + 10 * limits.MAX_TOP_LOGPROBS
STAGES_BYTES = 80


def add_router_out(out: RouterOut, splitter: Splitter[pb.WorkerMessage]) -> None:
    """In the order of the fields' numbers, so that a request's tokens go before its end even when split."""
    for handle in out.accepted:
        splitter.room(8).accepted.add(handle=handle)
    for reserved in out.reserved:
        splitter.room(64).reserved.add(
            handle=reserved.handle, decode_instance_id=reserved.decode, reserve_seconds=reserved.reserve_seconds
        )
    for start in range(0, len(out.tokens), limits.TOKEN_ENTRIES):
        _add_tokens(out, start, min(start + limits.TOKEN_ENTRIES, len(out.tokens)), splitter)
    for handed in out.handed_off:
        item = splitter.room(STAGES_BYTES + 48).handed_off.add(handle=handed.handle, decode_instance_id=handed.decode)
        _write_stages(handed.stages, item.stages)
    for finished in out.finished:
        note = splitter.room(STAGES_BYTES + 32).finished.add(
            handle=finished.handle,
            reason=finished.reason,
            output_tokens=finished.output_tokens,
            stop_token=finished.stop_token or 0,
            stopped_by_token=finished.stop_token is not None,
        )
        _write_stages(finished.stages, note.stages)
    for failed in out.failed:
        reason = failed.reason[: limits.MAX_REASON]
        splitter.room(len(reason) + 32).failed.add(
            handle=failed.handle,
            code=int(failed.code),
            reason=reason,
            retry_after=failed.retry_after,
            was_running=failed.was_running,
        )


def _add_tokens(out: RouterOut, start: int, stop: int, splitter: Splitter[pb.WorkerMessage]) -> None:
    logprobs = out.logprobs and [(i, out.logprobs[i]) for i in range(start, stop) if i in out.logprobs]
    size = TOKEN_BYTES * (stop - start) + LOGPROB_BYTES * len(logprobs or ())
    batch = splitter.room(size).tokens
    offset = len(batch.tokens)
    batch.handles.extend(out.handles[start:stop])
    batch.indices.extend(out.indices[start:stop])
    batch.tokens.extend(out.tokens[start:stop])
    for entry, logprob in logprobs or ():
        write_logprobs(offset + entry - start, logprob, batch.logprobs.add())


def read_router_out(message: pb.WorkerMessage) -> RouterOut:
    out = RouterOut()
    out.accepted = [item.handle for item in checks.bounded(message.accepted, limits.MAX_ITEMS, "accepted")]
    out.reserved = [
        ReservedNote(item.handle, _peer(item.decode_instance_id), item.reserve_seconds)
        for item in checks.bounded(message.reserved, limits.MAX_ITEMS, "reserved")
    ]
    if message.HasField("tokens"):
        _read_tokens(message.tokens, out)
    out.handed_off = [
        HandedOffNote(item.handle, _peer(item.decode_instance_id), _read_stages(item.stages))
        for item in checks.bounded(message.handed_off, limits.MAX_ITEMS, "handed_off")
    ]
    out.finished = [_read_finished(item) for item in checks.bounded(message.finished, limits.MAX_ITEMS, "finished")]
    out.failed = [_read_failed(item) for item in checks.bounded(message.failed, limits.MAX_ITEMS, "failed")]
    return out


def _read_tokens(batch: TokenBatch, out: RouterOut) -> None:
    checks.bounded(batch.tokens, limits.MAX_ITEMS, "tokens")
    checks.same_length("tokens", batch.handles, batch.indices, batch.tokens)
    checks.bounded(batch.logprobs, len(batch.tokens), "logprobs")
    out.handles = list(batch.handles)
    out.indices = list(batch.indices)
    out.tokens = list(batch.tokens)
    for item in batch.logprobs:
        if item.entry >= len(out.tokens):
            raise ProtocolError(f"logprobs.entry: {item.entry} of {len(out.tokens)}", "malformed")
        out.logprobs[item.entry] = read_logprobs(item)


def _read_finished(item: pb.Finished) -> FinishedNote:
    return FinishedNote(
        handle=item.handle,
        reason=checks.bounded(item.reason, limits.MAX_NAME, "finished.reason"),
        output_tokens=item.output_tokens,
        stop_token=item.stop_token if item.stopped_by_token else None,
        stages=_read_stages(item.stages),
    )


def _read_failed(item: pb.Failed) -> FailedNote:
    try:
        code = FailureCode(item.code)
    except ValueError as error:
        raise ProtocolError(f"failed.code: {error}", "malformed") from error
    return FailedNote(
        handle=item.handle,
        code=code,
        reason=checks.bounded(item.reason, limits.MAX_REASON, "failed.reason"),
        retry_after=item.retry_after,
        was_running=item.was_running,
    )


def _peer(instance_id: str) -> PeerId:
    return PeerId(checks.bounded(instance_id, limits.MAX_NAME, "decode_instance_id"))


def _write_stages(stages: Stages, message: pb.Stages) -> None:
    message.queue = stages.queue
    message.prepare = stages.prepare
    message.reserve = stages.reserve
    message.prefill = stages.prefill
    message.transfer = stages.transfer
    message.cached_tokens = stages.cached_tokens
    message.decode = stages.decode
    message.transferred_bytes = stages.transferred_bytes


def _read_stages(message: pb.Stages) -> Stages:
    return Stages(
        queue=message.queue,
        prepare=message.prepare,
        reserve=message.reserve,
        prefill=message.prefill,
        transfer=message.transfer,
        cached_tokens=message.cached_tokens,
        decode=message.decode,
        transferred_bytes=message.transferred_bytes,
    )
