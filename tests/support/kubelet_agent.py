"""A node of the cluster under test whose pods really run, as processes on this host: it stands in for a kubelet.

One task follows the pods that the scheduler gives to the node; each pod is a task of its own.
"""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cluster_client import ApiError, Client
from kubelet_pod import PodLife, base_environment
from side_by_side import agents

Manifest = dict[str, Any]

ADDRESSES = agents().hosts()
"""The pods' own loopback addresses, none of them used twice."""

HEARTBEAT_SECONDS = 10.0


class Agent:
    """The node `name`; `pods` maps (namespace, name) to the life of each pod that is on it."""

    def __init__(self, admin: Client, server: str, name: str, folder: Path) -> None:
        self._admin = admin
        self._name = name
        self._folder = folder
        self._base = base_environment(server)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lives: dict[str, PodLife] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self.pods: dict[tuple[str, str], PodLife] = {}

    async def run(self) -> None:
        """Registers the node and serves it until cancelled."""
        await self._admin.create(node(self._name))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._follow())
        finally:
            await self.close()

    async def close(self) -> None:
        """Kills every pod; nothing of them is left."""
        tasks = [*self._tasks.values(), *self._ending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(life.close() for life in self._lives.values()))

    async def _follow(self) -> None:
        async for change in self._admin.follow("/api/v1/pods", {"fieldSelector": f"spec.nodeName={self._name}"}):
            if change.listed is not None:
                present = {pod["metadata"]["uid"] for pod in change.listed}
                for uid in self._lives.keys() - present:
                    await self._forget(uid)
            for pod in change.listed if change.listed is not None else [change.changed]:
                if change.deleted:
                    await self._forget(pod["metadata"]["uid"])
                else:
                    self._see(pod)

    def _see(self, pod: Manifest) -> None:
        uid, leaving = pod["metadata"]["uid"], pod["metadata"].get("deletionTimestamp")
        if uid not in self._lives and not leaving:
            self._start(uid, pod)
        if leaving and uid not in self._ending:
            self._ending[uid] = asyncio.create_task(self._end(uid, pod))

    def _start(self, uid: str, pod: Manifest) -> None:
        folder = self._folder / uid
        folder.mkdir(parents=True)
        life = PodLife(self._admin, pod, str(next(ADDRESSES)), folder, self._base)
        self._lives[uid] = life
        self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]] = life
        self._tasks[uid] = asyncio.create_task(life.run())

    async def _end(self, uid: str, pod: Manifest) -> None:
        life, task = self._lives.get(uid), self._tasks.get(uid)
        if life and task:
            await life.stop(float(pod["metadata"].get("deletionGracePeriodSeconds", 30)))
            await asyncio.wait([task])
        client, name = self._admin.within(pod["metadata"]["namespace"]), pod["metadata"]["name"]
        with contextlib.suppress(ApiError):
            await client.delete("v1/Pod", name, gracePeriodSeconds=0, preconditions={"uid": uid})

    async def _forget(self, uid: str) -> None:
        """The pod is no more: also after a forced deletion, when nobody waited for its processes."""
        life = self._lives.pop(uid, None)
        if life is None:
            return
        tasks = [task for task in (self._tasks.pop(uid, None), self._ending.pop(uid, None)) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await life.close()
        self.pods = {key: entry for key, entry in self.pods.items() if entry is not life}

    async def _beat(self) -> None:
        leases = self._admin.within("kube-node-lease")
        while True:
            await leases.apply(lease(self._name), "kubelet")
            await asyncio.sleep(HEARTBEAT_SECONDS)


@contextlib.asynccontextmanager
async def node_agent(admin: Client, server: str, name: str, folder: Path) -> AsyncIterator[Agent]:
    """A node that serves while the context lasts; its object and its processes go afterwards."""
    agent = Agent(admin, server, name, folder)
    task = asyncio.create_task(agent.run())
    try:
        await admin.wait("v1/Node", name, _schedulable)
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await admin.delete("v1/Node", name)


def node(name: str) -> Manifest:
    """A node that is ready, and much larger than this host: the tests' loads are small."""
    size = {"cpu": "64", "memory": "256Gi", "pods": "200", "ephemeral-storage": "100Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "type": "process"}},
        "status": {
            "capacity": size,
            "allocatable": size,
            "conditions": [{"type": "Ready", "status": "True", "reason": "AgentServes"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        },
    }


def lease(name: str) -> Manifest:
    """The sign of life that the controller manager looks for."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
    }


def _schedulable(found: Manifest | None) -> bool:
    return found is not None and not found["spec"].get("taints")
