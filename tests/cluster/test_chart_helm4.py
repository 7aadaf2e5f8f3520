"""The chart by Helm 4, which applies on the server's side: what others write of an object stays theirs."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_identity import ACCOUNT, CHART, identity_of
from cluster_operator import operator_process, turns

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

DEFINITION = "apiextensions.k8s.io/v1/CustomResourceDefinition"
DEFINITIONS = ("pdclusters.pdcluster.dev", "pdrolescalers.pdcluster.dev")
DEPLOYMENT, AUTOSCALER = "apps/v1/Deployment", "autoscaling/v2/HorizontalPodAutoscaler"
MANAGED = {"decode__replicas": None, "decode__scaling": {"mode": "Managed", "minReplicas": 1, "maxReplicas": 6}}


class Release:
    """Helm 4 for the chart, and for a chart of the user's with one PDCluster."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._namespace = namespace

    def run(self, *arguments: str) -> CompletedProcess[str]:
        return self._plane.helm(*arguments, "--namespace", self._namespace, program="helm4")

    def put(self, verb: str, name: str, chart: Path, *flags: str) -> None:
        done = self.run(verb, name, str(chart), "--timeout", "60s", *flags)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def release(admin: Client, control_plane: ControlPlane) -> Iterator[Release]:
    made = Release(control_plane, admin.namespace)
    yield made
    for name in ("model", "pdcluster"):
        made.run("uninstall", name, "--ignore-not-found")


def chart_of(folder: Path, manifest: Manifest, version: str) -> Path:
    """A user's chart of one manifest; JSON is YAML."""
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    (folder / "Chart.yaml").write_text(f"{{apiVersion: v2, name: model, version: {version}}}\n")
    (folder / "templates" / "model.yaml").write_text(json.dumps(manifest))
    return folder


async def test_upgrades_leave_the_numbers_that_others_set(
    admin: Client, node: str, control_plane: ControlPlane, release: Release, tmp_path: Path
) -> None:
    watched = f"--set=watchNamespaces={{{admin.namespace}}}"
    release.put("install", "pdcluster", CHART, "--take-ownership", "--wait", watched)
    kubeconfig = identity_of(control_plane, admin.namespace, tmp_path)
    with operator_process(tmp_path, kubeconfig, admin.namespace, PDC_RESYNC_SECONDS="1") as operator:
        release.put("install", "model", chart_of(tmp_path / "model", cluster(**MANAGED), "1.0.0"))
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
        await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": 3}}, "scale")
        await admin.wait(STATEFUL_SET, "demo-decode", replicas(3))
        autoscaler = await admin.get(AUTOSCALER, "demo-decode")

        edited = cluster(**MANAGED, disruption={"maxUnavailable": 2})
        release.put("upgrade", "model", chart_of(tmp_path / "model", edited, "1.1.0"), "--wait")
        changed = await admin.get(CLUSTER, "demo")
        assert has_condition("Ready", "True")(changed), "Helm waits for the generation that it made"
        assert changed["status"]["observedGeneration"] == changed["metadata"]["generation"]
        release.put("upgrade", "pdcluster", CHART, "--wait", watched, "--set=operator.replicas=3")
        await turns(operator, 3)

        assert changed["spec"]["disruption"]["maxUnavailable"] == 2
        assert (await admin.get(DEPLOYMENT, ACCOUNT))["spec"]["replicas"] == 3
        assert (await admin.get(SCALER, "demo-decode"))["spec"]["replicas"] == 3
        assert (await admin.get(STATEFUL_SET, "demo-decode"))["spec"]["replicas"] == 3
        assert (await admin.get(AUTOSCALER, "demo-decode"))["metadata"]["uid"] == autoscaler["metadata"]["uid"]
        assert not has_condition("Degraded", "True")(await admin.get(CLUSTER, "demo"))

    gone = release.run("uninstall", "pdcluster", "--wait", "--timeout", "60s")
    assert gone.returncode == 0, gone.stderr
    assert await admin.find(DEPLOYMENT, ACCOUNT) is None
    for name in DEFINITIONS:
        assert not (await admin.get(DEFINITION, name))["metadata"].get("deletionTimestamp")
    kept = await admin.get(CLUSTER, "demo")
    assert "deletionTimestamp" not in kept["metadata"]
    assert (await admin.get(SCALER, "demo-decode"))["spec"]["replicas"] == 3
