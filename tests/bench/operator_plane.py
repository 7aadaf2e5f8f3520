"""A control plane for the benchmark, its nodes, and the operator as a process under its own ServiceAccount."""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import psutil
from cluster_control_plane import ADMIN_TOKEN, TRUST, ControlPlane, other_controllers, running, write_kubeconfig
from cluster_manifests import fake_node
from cluster_operator import OperatorProcess, turns_taken
from operator_client import BareClient, connected
from operator_manifests import NAMESPACE, Manifest

__all__ = ["other_controllers"]

DEFINITIONS = sorted((Path(__file__).parents[2] / "manifests" / "crd").glob("*.yaml"))
ACCOUNT = "pdcluster-operator"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
KWOK = "kwok-admin"
CONTROLLERS = "system:kube-controller-manager"
NODES = 30
NO_AUTOSCALER = "-horizontal-pod-autoscaler-controller"
WITHOUT_PODS = f"--controllers=*,{NO_AUTOSCALER},-statefulset-controller,-deployment-controller,-replicaset-controller"
WITH_PODS = f"--controllers=*,{NO_AUTOSCALER}"


@asynccontextmanager
async def plane_without_pods(folder: Path) -> AsyncIterator[tuple[ControlPlane, BareClient]]:
    """Everything but the controllers of workloads; the namespace is there."""
    folder.mkdir()
    with running(folder, DEFINITIONS, [WITHOUT_PODS]) as plane:
        async with connected(plane.server, folder / TRUST, ADMIN_TOKEN) as client:
            await client.post(
                "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            )
            yield plane, client


async def add_nodes(client: BareClient) -> None:
    """Room for all pods there will be."""
    for number in range(NODES):
        node: Manifest = fake_node(f"node-{number}", gpus=0)
        size = {"cpu": "4k", "memory": "64Ti", "pods": "500"}
        await client.post("/api/v1/nodes", {**node, "status": {"capacity": size, "allocatable": size}})


@contextmanager
def operator(plane: ControlPlane) -> Iterator["Measured"]:
    """The operator for all namespaces; it may do everything, as only what it does is counted here."""
    for arguments in (
        ("create", "serviceaccount", ACCOUNT, "-n", NAMESPACE),
        (
            "create",
            "clusterrolebinding",
            ACCOUNT,
            "--clusterrole=cluster-admin",
            f"--serviceaccount={NAMESPACE}:{ACCOUNT}",
        ),
    ):
        plane.kubectl(*arguments).check_returncode()
    token = plane.kubectl("create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=4h")
    token.check_returncode()
    path = write_kubeconfig(
        plane.folder / "operator.kubeconfig", plane.server, plane.folder / TRUST, token.stdout.strip()
    )
    settings = {"PDC_NAMESPACES": "", "PDC_LEASE_SECONDS": "15"}
    with contextlib.closing(OperatorProcess(plane.folder, path, NAMESPACE, settings)) as process:
        yield Measured(process)


class Measured:
    """What the operator's process uses."""

    def __init__(self, process: OperatorProcess) -> None:
        self._started = process
        self._process = psutil.Process(process.program.pid)

    def restart(self) -> None:
        """Ends it and starts another, whose resources are told of from now on; returns when that one's port answers."""
        self._started.restart()
        self._process = psutil.Process(self._started.program.pid)

    async def turns_taken(self) -> float:
        return await turns_taken(self._started)

    def resident_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
