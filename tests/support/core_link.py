"""What one worker's core says to its peer, as the events that arrive there: the wire of the simulated cluster."""

import msgspec

from pdcluster_worker.core import effects, events
from pdcluster_worker.core.ids import PeerId


def prefill_events(peer: PeerId, out: effects.ToDecode) -> list[events.Event]:
    """What arrives at the decode worker, in the order of the message's fields."""
    batch: list[events.Event] = []
    for commit in out.commits:
        batch.append(events.CommitAsked(peer=peer, **msgspec.structs.asdict(commit)))
    for closed in out.writes_closed:
        batch.append(events.WritesClosed(peer=peer, **msgspec.structs.asdict(closed)))
    for release in out.releases:
        batch.append(events.Released(peer=peer, **msgspec.structs.asdict(release)))
    for reserve in out.reserves:
        batch.append(events.ReserveAsked(peer=peer, **msgspec.structs.asdict(reserve)))
    if out.heartbeat is not None:
        batch.append(events.PrefillHeartbeat(peer=peer, heartbeat=out.heartbeat))
    return batch


def decode_events(peer: PeerId, out: effects.ToPrefill) -> list[events.Event]:
    batch: list[events.Event] = []
    for grant in out.grants:
        batch.append(events.Granted(peer=peer, **msgspec.structs.asdict(grant)))
    for key in out.queued:
        batch.append(events.QueuedThere(peer=peer, key=key))
    for refusal in out.refusals:
        batch.append(events.Refused(peer=peer, **msgspec.structs.asdict(refusal)))
    for committed in out.committed:
        batch.append(events.CommitAccepted(peer=peer, **msgspec.structs.asdict(committed)))
    for lost in out.leases_lost:
        batch.append(events.LeaseEnded(peer=peer, **msgspec.structs.asdict(lost)))
    if out.credits is not None:
        batch.append(events.CreditsChanged(peer=peer, **msgspec.structs.asdict(out.credits)))
    if out.heartbeat is not None:
        batch.append(events.DecodeHeartbeat(peer=peer, heartbeat=out.heartbeat))
    return batch
