"""Fixtures of tests that start real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kv_executors import SimulatedExecutor

from pdcluster_worker.kv.protocol import KVProtocol


@pytest.fixture
def make_executor() -> Iterator[Callable[..., SimulatedExecutor]]:
    """Executor processes with the simulated runner. At the end each has exited once and left no process or socket."""
    made: list[SimulatedExecutor] = []

    def make(protocol: KVProtocol = KVProtocol.IPC, profile: str = '{"verification": "full"}') -> SimulatedExecutor:
        made.append(SimulatedExecutor(protocol, profile))
        return made[-1]

    yield make
    for executor in made:
        executor.close()
    for executor in made:
        assert len(executor.exits) == 1
        assert not executor.folder.exists()
        assert not Path(f"/proc/{executor.process.pid}").exists()
