"""What a message may hold at most. A peer that sends more is disconnected and counted (`checks.py`)."""

PROTOCOL_VERSION = 1
"""History: 1, the first."""

SPLIT_BYTES = 1 << 20
"""A batch that grows over this is sent as several messages."""

MAX_MESSAGE_BYTES = 8 << 20
"""What a server accepts unless told otherwise (`--max-message-bytes`)."""

MAX_PENDING_BYTES = 32 << 20
"""What may wait on one stream for a peer that reads slowly; beyond it the stream is closed."""

REQUEST_ID_BYTES = 16
MAX_NAME = 256
"""Characters of names, addresses, revisions, hashes and reasons of an end."""
MAX_SALT = 1024
MAX_REASON = 2048
"""Characters of sentences for people; senders cut theirs."""

MAX_ITEMS = 65_536
"""Requests, leases, notes or tokens in one message."""
TOKEN_ENTRIES = 3072
"""How many tokens a sender puts into one message: with 20 alternatives each about 1 MiB."""

MAX_REQUEST_TOKENS = 1 << 20
MAX_REQUEST_BLOCKS = 1 << 18
MAX_STOP_TOKENS = 4096
MAX_BIASES = 65_536
MAX_TOP_LOGPROBS = 20
MAX_OUTPUTS = 65_536
MAX_LEASES = 1 << 17

MAX_PEERS = 4096
MAX_RANKS = 64
MAX_REGIONS = 1024
MAX_AGENT_METADATA = 1 << 20
MAX_POOL_BLOCKS = 1 << 31
