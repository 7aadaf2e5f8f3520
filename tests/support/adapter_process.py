"""The product's metrics adapter as a process of the test, with the rights that the chart gives it and no others.

The API server reaches it as it reaches `cluster_adapter`: through a Service that resolves to this host.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from cluster_adapter import API_SERVICE, available
from cluster_client import ApiError, Client, Manifest
from cluster_control_plane import TRUST, ControlPlane, write_kubeconfig
from cluster_process import Program, Reservation

CHART = Path(__file__).resolve().parents[2] / "charts" / "pdcluster"
NAME = "pdcluster-metrics-adapter"
API_SERVICE_KIND = "apiregistration.k8s.io/v1/APIService"
TEMPLATES = ("apiservice", "deployment", "rbac", "service")
NOT_PLAYED = {"Deployment", "PodDisruptionBudget"}
"""Of the chart's objects: the test plays them."""


def rendered(plane: ControlPlane, namespace: str, *settings: str) -> list[Manifest]:
    """The adapter's objects in the chart."""
    shown = [f"--show-only=templates/adapter-{name}.yaml" for name in TEMPLATES]
    flags = [f"--set={setting}" for setting in ("metricsAdapter.enabled=true", *settings)]
    made = plane.helm(
        "template", "pdcluster", str(CHART), f"--namespace={namespace}", "--kube-version=1.36.3", *shown, *flags
    )
    assert made.returncode == 0, made.stderr
    return [document for document in yaml.safe_load_all(made.stdout) if document]


class ProductAdapter:
    """Replicas by number; the API server asks the first one."""

    def __init__(self, admin: Client, folder: Path, environment: dict[str, str]) -> None:
        self._admin = admin
        self._folder = folder
        self.environment = environment
        self._stack = contextlib.ExitStack()
        self.ports: list[int] = []
        self.health: list[int] = []
        self.programs: list[Program] = []

    def reserve(self) -> None:
        """Ports for one more replica."""
        for ports in (self.ports, self.health):
            reserved = self._stack.enter_context(contextlib.closing(Reservation()))
            ports.append(reserved.port)

    def start(self, **environment: str) -> Program:
        """One more replica, on the ports reserved last."""
        ports = {"PDC_ADAPTER_PORT": str(self.ports[-1]), "PDC_METRICS_PORT": str(self.health[-1])}
        command = [sys.executable, "-m", "pdcluster_operator.scaling.adapter"]
        settings = {**os.environ, **self.environment, **ports, **environment}
        program = Program(f"adapter-{len(self.programs)}", command, self._folder, settings)
        self.programs.append(program)
        self._stack.callback(program.close)
        return program

    def wait_ready(self) -> None:
        self.programs[-1].wait_ready(f"http://127.0.0.1:{self.health[-1]}/ready", seconds=30)

    def of(self, namespace: str) -> "ProductAdapter":
        """The same adapter, asked for another namespace."""
        return ProductAdapter(self._admin.within(namespace), self._folder, self.environment)

    async def answer(self, metric: str, selector: str) -> Manifest | ApiError:
        """As an autoscaler gets it, through the API server."""
        path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{self._admin.namespace}/{metric}"
        try:
            return await self._admin.call("GET", path, {"labelSelector": selector})
        except ApiError as error:
            return error

    def close(self) -> None:
        self._stack.close()
        for program in self.programs:
            print(program.tail(40))


@contextlib.asynccontextmanager
async def registered(admin: Client, plane: ControlPlane, folder: Path) -> AsyncIterator[ProductAdapter]:
    """The chart's objects are there, but no replica runs yet; none of them is left afterwards."""
    adapter = ProductAdapter(admin, folder, {"POD_NAMESPACE": admin.namespace, "PDC_HOST": "127.0.0.1"})
    adapter.reserve()
    made = [_played(manifest, adapter.ports[0]) for manifest in rendered(plane, admin.namespace)]
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(adapter.close)
        for manifest in (manifest for manifest in made if manifest["kind"] not in NOT_PLAYED):
            client = admin.within(manifest["metadata"].get("namespace", admin.namespace))
            await client.create(manifest)
            stack.push_async_callback(_remove, client, manifest)
        adapter.environment["KUBECONFIG"] = str(await _account(admin, plane, folder))
        yield adapter


@contextlib.asynccontextmanager
async def serving(admin: Client, plane: ControlPlane, folder: Path) -> AsyncIterator[ProductAdapter]:
    """One replica that the API server asks."""
    async with registered(admin, plane, folder) as adapter:
        adapter.start()
        adapter.wait_ready()
        await admin.wait(API_SERVICE_KIND, API_SERVICE, available)
        yield adapter


async def _account(admin: Client, plane: ControlPlane, folder: Path) -> Path:
    """A kubeconfig with the token of the chart's ServiceAccount."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await admin.call("POST", admin.path("v1/ServiceAccount", NAME, "token"), {}, request)
    token = answer["status"]["token"]
    return write_kubeconfig(folder / "adapter.kubeconfig", plane.server, plane.folder / TRUST, token)


async def _remove(client: Client, manifest: Manifest) -> None:
    kind = f"{manifest['apiVersion']}/{manifest['kind']}"
    if await client.find(kind, manifest["metadata"]["name"]):
        await client.delete(kind, manifest["metadata"]["name"])


def _played(manifest: Manifest, port: int) -> Manifest:
    """No pod's address is routed here: the Service resolves to this host, and the port is the process' own."""
    edits: dict[str, dict[str, Any]] = {
        "Service": {"spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]}},
    }
    if manifest["kind"] == "APIService":
        spec = manifest["spec"]
        return {**manifest, "spec": {**spec, "service": {**spec["service"], "port": port}}}
    return {**manifest, **edits.get(manifest["kind"], {})}
