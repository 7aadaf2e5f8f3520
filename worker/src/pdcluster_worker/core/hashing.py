"""Names of KV blocks: equal hashes mean equal KV. Pure; called by the prepare threads."""

import hashlib

HASH_BYTES = 32


def block_hashes(tokens: bytes, block_size: int, model_id: str, layout: str, cache_salt: str) -> bytes:
    """SHA-256 of each full block of `tokens` (little-endian uint32), concatenated.

    Each hash covers the one before it, hence the whole prefix; the first is seeded by model, layout and salt.
    """
    seed = hashlib.sha256()
    for part in (model_id, layout, cache_salt):
        encoded = part.encode()
        seed.update(len(encoded).to_bytes(8, "little") + encoded)
    previous = seed.digest()
    block_bytes = 4 * block_size
    hashes = bytearray()
    for start in range(0, len(tokens) - block_bytes + 1, block_bytes):
        previous = hashlib.sha256(previous + tokens[start : start + block_bytes]).digest()
        hashes += previous
    return bytes(hashes)
