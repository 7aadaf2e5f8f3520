"""How KV bytes travel between workers: `transport.kv.protocol` of a PDCluster."""

import enum


class KVProtocol(enum.StrEnum):
    RDMA = "RDMA"
    TCP = "TCP"
    IPC = "IPC"
