"""Names of things, typed so that one cannot stand where another belongs."""

from typing import NamedTuple, NewType

RequestId = NewType("RequestId", bytes)
"""Sixteen bytes that a router made up."""

LeaseId = NewType("LeaseId", int)
"""Unique within one decode worker process; unsigned 64 bits."""

PeerId = NewType("PeerId", str)
"""The instance id of another worker process: new with every start."""

StreamId = NewType("StreamId", int)
"""One open stream from a router, unique within this process."""

BlockId = NewType("BlockId", int)
Slot = NewType("Slot", int)
"""Index of a request's place in the executor's tables."""

PlanId = NewType("PlanId", int)
TransferId = NewType("TransferId", int)


class RequestKey(NamedTuple):
    """What all state is keyed by: a request and which of its lives this is."""

    request_id: RequestId
    epoch: int
