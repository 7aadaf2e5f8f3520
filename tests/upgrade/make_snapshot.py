"""Makes the snapshot of this release, from which the upgrade to later ones is tested: `make snapshot`.

Run once for each release, on its commit: the chart's version names the folder, and one that exists is left alone.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from cluster_client import Manifest, connect  # noqa: E402
from cluster_control_plane import TRUST, ControlPlane, running, write_kubeconfig  # noqa: E402
from cluster_expect import CLUSTER, cluster, has_condition  # noqa: E402
from cluster_identity import chart_token  # noqa: E402
from cluster_manifests import fake_node  # noqa: E402
from cluster_operator import operator_process  # noqa: E402
from upgrade_snapshot import NAME, NAMESPACE, RELEASES, SYSTEM, Snapshot, taken  # noqa: E402

CHART = ROOT / "charts" / "pdcluster"
DEFINITION = "CustomResourceDefinition"
SHAPE = {"decode__replicas": None, "decode__scaling": {"mode": "Managed", "minReplicas": 2, "maxReplicas": 4}}


async def made(folder: Path) -> Snapshot:
    """This release's operator at work in a control plane of its own, and what it left there."""
    definitions = sorted((ROOT / "manifests" / "crd").glob("*.yaml"))
    with running(folder, definitions) as plane:
        rendered = plane.helm("template", "pdcluster", str(CHART), "--namespace", SYSTEM)
        manifests = [entry for entry in yaml.safe_load_all(rendered.stdout) if entry]
        for name in (SYSTEM, NAMESPACE):
            plane.kubectl("create", "namespace", name)
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
        return Snapshot(
            RELEASES / f"v{version}",
            [entry for entry in manifests if entry["kind"] == DEFINITION],
            [entry for entry in manifests if entry["kind"] != DEFINITION],
            await objects(plane, folder),
        )


async def objects(plane: ControlPlane, folder: Path) -> list[Manifest]:
    """A ready PDCluster with certificates, a budget, network policies and a Managed role."""
    token = chart_token(plane, SYSTEM, clusterwide=True)
    kubeconfig = write_kubeconfig(folder / "operator.kubeconfig", plane.server, plane.folder / TRUST, token)
    async with connect(plane.kubeconfig, NAMESPACE) as admin:
        await admin.create(fake_node("node"))
        with operator_process(folder, kubeconfig, SYSTEM, PDC_NAMESPACES=NAMESPACE):
            await admin.create({**cluster(**SHAPE), "metadata": {"name": NAME}})
            await admin.wait(CLUSTER, NAME, has_condition("Ready", "True"), seconds=120)
            return await taken(admin)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = asyncio.run(made(Path(folder)))
    if snapshot.folder.exists():
        sys.exit(f"{snapshot.folder} exists: a release's snapshot is made once")
    snapshot.write()
    print(f"{snapshot.folder}: {len(snapshot.objects)} objects")


if __name__ == "__main__":
    main()
