"""What the engine tells the executor to do in one step. The executor takes no decision of its own.

The executor keeps, per slot: the tokens (given at admission, then each token that it samples itself), the
block table and the sampler's state. So a plan names positions, never token values, and plan k+1 can be sent
before the tokens of step k are back.
"""

import msgspec

from pdcluster_worker.core.request import SamplingParams


class Admission(msgspec.Struct, frozen=True):
    """Puts a request into a slot. `tokens` as in Request; `block_ids` cover at least what is cached already."""

    slot: int
    request_id: bytes
    epoch: int
    tokens: bytes
    prompt_length: int
    sampling: SamplingParams
    block_ids: tuple[int, ...]


class TransferSpec(msgspec.Struct, frozen=True):
    """Write the KV of tokens[:tokens] of a slot into leased blocks of a peer, as it gets computed.

    Entry i of `local_blocks` goes to entry i of `remote_blocks`; the first of them is block `first_block` of
    the request (those before it are on the peer already). `computed_tokens` of the prompt are in the local
    blocks now; the rest arrives with later steps of `slot` (slot -1: all is there). Ends in exactly one
    TransferFinished per rank, after all of that rank's handles are final. Nothing is posted after `lifetime`
    seconds from receipt.
    """

    transfer_id: int
    slot: int
    peer: str
    first_block: int
    local_blocks: tuple[int, ...]
    remote_blocks: tuple[int, ...]
    tokens: int
    computed_tokens: int
    lifetime: float


class StepPlan(msgspec.Struct, frozen=True):
    """One step. Order: drop_slots, admissions, appended_blocks, transfers, then the batch.

    Batch entry i computes positions [starts[i], starts[i] + counts[i]) of slots[i]; with samples[i] the token
    after them is sampled, appended to the slot's tokens and returned in StepDone in batch order. An empty
    batch is allowed (drops only) and still answered with StepDone.
    """

    plan_id: int
    drop_slots: tuple[int, ...] = ()
    admissions: tuple[Admission, ...] = ()
    appended_blocks: tuple[tuple[int, tuple[int, ...]], ...] = ()
    transfers: tuple[TransferSpec, ...] = ()
    slots: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    samples: tuple[bool, ...] = ()
