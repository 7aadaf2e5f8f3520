"""The shape of KV memory, and the hash that two workers must share before one may write into the other.

Per layer one region [2, num_blocks, kv_heads, block_size, head_dim]: first all K blocks, then all V blocks.
"""

import hashlib
from dataclasses import dataclass

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class KVLayout:
    """`kv_heads` is per rank. `model_id` names the weights: equal ids mean equal KV for equal tokens."""

    model_id: str
    dtype: str
    layers: int
    num_blocks: int
    kv_heads: int
    block_size: int
    head_dim: int

    @property
    def block_bytes(self) -> int:
        """Bytes of one K block (or V block) of one layer."""
        return self.kv_heads * self.block_size * self.head_dim * ITEM_BYTES[self.dtype]

    @property
    def region_bytes(self) -> int:
        return 2 * self.num_blocks * self.block_bytes

    @property
    def bytes_per_block(self) -> int:
        """Of one block over all layers, K and V: what one unit of the pool costs."""
        return 2 * self.layers * self.block_bytes

    def k_offset(self, block: int) -> int:
        """Byte offset of a K block in its layer's region."""
        return block * self.block_bytes

    def v_offset(self, block: int) -> int:
        return (self.num_blocks + block) * self.block_bytes

    def layout_hash(self) -> str:
        """Hex; covers all that must match between peers. The number of blocks may differ."""
        text = "|".join(
            str(part)
            for part in ("kv1", self.model_id, self.dtype, self.layers, self.kv_heads, self.block_size, self.head_dim)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:32]
