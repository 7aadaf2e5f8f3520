"""The life of one pod on this node: volumes, init containers, containers, status, and its end."""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from cluster_client import ApiError, Client
from kubelet_container import Container, Launch
from kubelet_environment import NotYetError, command, environment
from kubelet_sandbox import Mount, arguments
from kubelet_volumes import Volumes, data_of

Manifest = dict[str, Any]

EVERYWHERE = "0.0.0.0"
"""In a pod: its own address. Here pods share one network, and each has a loopback address to itself."""
SYNC_SECONDS = 1.0
"""How often a pod's ConfigMaps and Secrets are read again; a real kubelet takes about a minute."""


class PodLife:
    """Runs one pod until it is told to stop; the only writer of that pod's status."""

    def __init__(self, client: Client, pod: Manifest, address: str, folder: Path, base: dict[str, str]) -> None:
        self._client = client.within(pod["metadata"]["namespace"])
        self._pod = {**pod, "status": {**pod.get("status", {}), "podIP": address, "hostIP": "127.0.0.1"}}
        self._folder = folder
        self._base = base
        self._volumes = Volumes(self._client, self._pod, folder / "volumes")
        self._dirty = asyncio.Event()
        self._initialized = False
        self._stopped = False
        self._transitions: dict[str, tuple[str, str]] = {}
        spec = pod["spec"]
        self._first = [self._container(entry, address) for entry in spec.get("initContainers", [])]
        self._main = [self._container(entry, address) for entry in spec["containers"]]

    async def run(self) -> None:
        """Brings the pod up and keeps it up; returns when all containers are done, cancelled by `stop`."""
        async with asyncio.TaskGroup() as group:
            reporter = group.create_task(self._report())
            keeper = group.create_task(self._keep_volumes())
            await self._initialize()
            async with asyncio.TaskGroup() as containers:
                for container in self._main:
                    containers.create_task(container.run(self._pod["spec"].get("restartPolicy", "Always")))
            keeper.cancel()
            reporter.cancel()
        await self._write_status()

    async def stop(self, grace: float) -> None:
        """An orderly end within the grace period; returns when no process is left."""
        self._stopped = True
        await asyncio.gather(*(container.stop(grace) for container in self._containers))

    async def close(self) -> None:
        """Kills all at once, and removes the pod's files but for its logs."""
        self._stopped = True
        await asyncio.gather(*(container.close() for container in self._containers))
        await asyncio.to_thread(shutil.rmtree, self._folder / "volumes", True)

    def process_id(self, container: str) -> int | None:
        """The process of a container, for tests that kill it."""
        return next(entry.process_id for entry in self._containers if entry.spec["name"] == container)

    @property
    def _containers(self) -> list[Container]:
        return [*self._first, *self._main]

    def _container(self, spec: Manifest, address: str) -> Container:
        return Container(spec, address, self._prepare, self._dirty.set)

    async def _initialize(self) -> None:
        for container in self._first:
            await container.run("OnFailure")
            if self._stopped:
                return
        self._initialized = True
        self._dirty.set()

    async def _prepare(self, spec: Manifest) -> Launch:
        await self._volumes.refresh()
        data = {kind: await self._referred(kind, spec) for kind in ("ConfigMap", "Secret")}
        variables = self._base | environment(self._pod, spec, lambda kind, name: data[kind].get(name))
        mounts = []
        for mount in spec.get("volumeMounts", []):
            source = self._volumes.path(mount["name"]) / mount.get("subPath", "")
            mounts.append(Mount(source, Path(mount["mountPath"]), bool(mount.get("readOnly", False))))
        sandbox = arguments(mounts, spec.get("workingDir", "/"))
        log = self._folder / f"{spec['name']}.log"
        line = [self._pod["status"]["podIP"] if word == EVERYWHERE else word for word in command(spec, variables)]
        return Launch(sandbox, line, variables, log)

    async def _referred(self, kind: str, spec: Manifest) -> dict[str, dict[str, str]]:
        """The decoded data of all objects of a kind that the container's environment names."""
        key, whole = ("secretKeyRef", "secretRef") if kind == "Secret" else ("configMapKeyRef", "configMapRef")
        names = {entry[whole]["name"] for entry in spec.get("envFrom", []) if whole in entry}
        names |= {entry["valueFrom"][key]["name"] for entry in spec.get("env", []) if key in entry.get("valueFrom", {})}
        found = {name: await data_of(self._client, kind, name) for name in names}
        return {name: {k: v.decode() for k, v in data.items()} for name, data in found.items() if data is not None}

    async def _keep_volumes(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            with contextlib.suppress(NotYetError, ApiError):
                await self._volumes.refresh()

    async def _report(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._write_status()

    async def _write_status(self) -> None:
        name, content = self._pod["metadata"]["name"], "application/strategic-merge-patch+json"
        body = {"metadata": {"uid": self._pod["metadata"]["uid"]}, "status": self._status()}
        with contextlib.suppress(ApiError):  # the pod is gone, or another of its name is there
            await self._client.call("PATCH", self._client.path("v1/Pod", name, "status"), {}, body, content)

    def _status(self) -> Manifest:
        codes = [container.exit_code for container in self._main]
        running = any(container.process_id for container in self._main)
        over = all(code is not None for code in codes) and not running and not self._restarts
        phase = ("Failed" if any(codes) else "Succeeded") if over else ("Running" if self._initialized else "Pending")
        ready = self._initialized and all(container.ready for container in self._main)
        address = self._pod["status"]["podIP"]
        return {
            "phase": phase,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": "127.0.0.1",
            "startTime": self._pod["status"].get("startTime") or _now(),
            "conditions": [
                self._condition("Initialized", self._initialized),
                self._condition("ContainersReady", ready),
                self._condition("Ready", ready),
            ],
            "initContainerStatuses": [container.status() for container in self._first],
            "containerStatuses": [container.status() for container in self._main],
        }

    @property
    def _restarts(self) -> bool:
        return self._pod["spec"].get("restartPolicy", "Always") == "Always" and not self._stopped

    def _condition(self, kind: str, holds: bool) -> Manifest:
        status = "True" if holds else "False"
        if self._transitions.get(kind, ("", ""))[0] != status:
            self._transitions[kind] = (status, _now())
        return {"type": kind, "status": status, "lastTransitionTime": self._transitions[kind][1]}


def base_environment(server: str) -> dict[str, str]:
    """What every container has: this host's PATH in place of an image's, and the way to the API server."""
    host, port = server.removeprefix("https://").rsplit(":", 1)
    kept = {"LANG": os.environ.get("LANG", "C.UTF-8"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return {**kept, "HOME": "/tmp", "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
