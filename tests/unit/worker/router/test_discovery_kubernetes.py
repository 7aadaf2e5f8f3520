"""Workers from pods: which count, and how changes are followed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from kubernetes.aio.client import ApiException

from pdcluster_worker.core.wire import Role
from pdcluster_worker.router.config import StaticWorker
from pdcluster_worker.router.discovery_kubernetes import Pod, PodWatcher, workers_of


def pod(name: str, role: str = "prefill", **changes: Any) -> dict[str, Any]:
    """As the API server sends it, with fields that nobody asked for."""
    return {
        "metadata": {
            "name": name,
            "uid": changes.get("uid", f"uid-{name}"),
            "resourceVersion": "7",
            "labels": {"pdcluster.dev/role": role, "pdcluster.dev/revision": changes.get("revision", "r1")},
            "managedFields": [{}],
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if changes.get("deleting") else {}),
        },
        "spec": {
            "containers": [
                {"name": "sidecar"},
                {"name": "worker", "ports": changes.get("ports", [{"name": "grpc", "containerPort": 9000}])},
            ]
        },
        "status": {"phase": changes.get("phase", "Running"), "podIP": changes.get("ip", "10.0.0.1"), "conditions": []},
    }


def found(*pods: dict[str, Any], revision: str = "") -> tuple[StaticWorker, ...]:
    return workers_of([msgspec.convert(each, Pod) for each in pods], revision)


PREFILL = StaticWorker(Role.PREFILL, "10.0.0.1:9000")
DECODE = StaticWorker(Role.DECODE, "10.0.0.2:9000")


def test_a_running_pod_counts_ready_or_not() -> None:
    assert found(pod("a")) == (PREFILL,)
    assert found(pod("a"), pod("b", "decode", ip="10.0.0.2")) == (DECODE, PREFILL)


@pytest.mark.parametrize(
    "changes",
    [{"phase": "Pending"}, {"ip": ""}, {"deleting": True}, {"role": "router"}, {"ports": []}, {"phase": "Failed"}],
    ids=str,
)
def test_pods_that_do_not_count(changes: dict[str, Any]) -> None:
    assert found(pod("a", changes.pop("role", "prefill"), **changes)) == ()


def test_revisions() -> None:
    assert found(pod("a", revision="r2"), revision="r1") == ()
    assert found(pod("a", revision="r1"), revision="r1") == (PREFILL,)
    assert found(pod("a", revision="r2")) == (PREFILL,)


def test_ipv6() -> None:
    assert found(pod("a", ip="fd00::1"))[0].address == "[fd00::1]:9000"


class FakeAPI:
    """Answers lists and watches from a script; after its end everything waits for ever."""

    def __init__(self, *script: list[dict[str, Any]] | Exception | tuple[str, dict[str, Any]]) -> None:
        self._script = list(script)
        self.lists = 0
        self.versions: list[str] = []

    async def list_pods(self, selector: str) -> bytes:
        assert selector == "pdcluster.dev/cluster=demo"
        self.lists += 1
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return json.dumps({"metadata": {"resourceVersion": f"v{self.lists}"}, "items": step}).encode()

    async def watch_pods(self, selector: str, resource_version: str) -> AsyncIterator[bytes]:
        self.versions.append(resource_version)
        while self._script and isinstance(self._script[0], tuple):
            kind, thing = self._script.pop(0)
            yield json.dumps({"type": kind, "object": thing}).encode()
        if not self._script:
            await asyncio.Event().wait()


def reports(api: FakeAPI, count: int) -> list[tuple[StaticWorker, ...]]:
    async def run() -> list[tuple[StaticWorker, ...]]:
        queue: asyncio.Queue[tuple[StaticWorker, ...]] = asyncio.Queue()
        task = asyncio.create_task(PodWatcher(api, "demo", "", queue.put).run())
        try:
            return [await asyncio.wait_for(queue.get(), 5) for _ in range(count)]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(run())


def test_changes_are_followed() -> None:
    second = pod("b", "decode", ip="10.0.0.2")
    api = FakeAPI(
        [pod("a")],
        ("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ("MODIFIED", pod("a")),
        ("ADDED", second),
        ("MODIFIED", pod("b", "decode", ip="10.0.0.2", deleting=True)),
        ("DELETED", second),
        ("DELETED", pod("a")),
    )
    assert reports(api, 4) == [(PREFILL,), (DECODE, PREFILL), (PREFILL,), ()]
    assert api.versions == ["v1"]


def test_a_version_that_is_too_old_lists_again() -> None:
    api = FakeAPI([pod("a")], ("ERROR", {"code": 410, "reason": "Expired"}), [])
    assert reports(api, 2) == [(PREFILL,), ()]
    assert api.lists == 2


def test_the_last_workers_stand_while_the_api_server_is_away() -> None:
    api = FakeAPI([pod("a")], ("ERROR", {}), ApiException(status=503, reason="away"), [pod("a")], ("ERROR", {}), [])
    assert reports(api, 2) == [(PREFILL,), ()]
    assert api.lists == 4


def test_pods_that_are_gone_are_told_until_they_come_back() -> None:
    router, first, second = pod("r", "router"), pod("a"), pod("b", uid="uid-old")
    script = (
        [router, first, second],
        ("MODIFIED", pod("a", deleting=True)),
        ("DELETED", first),
        ("DELETED", router),
        ("ERROR", {}),
        [],
        ("ADDED", pod("b", uid="uid-new")),
    )

    async def run() -> list[frozenset[str]]:
        queue: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        ignored: asyncio.Queue[tuple[StaticWorker, ...]] = asyncio.Queue()
        task = asyncio.create_task(PodWatcher(FakeAPI(*script), "demo", "", ignored.put, queue.put_nowait).run())
        try:
            return [await asyncio.wait_for(queue.get(), 5) for _ in range(3)]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    assert asyncio.run(run()) == [{"a"}, {"a", "b"}, {"a"}]
