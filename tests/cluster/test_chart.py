"""The chart's life by Helm: installed, changed, taken back and gone. KWOK plays its pods."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane

pytestmark = pytest.mark.anyio

CHART = Path(__file__).resolve().parents[2] / "charts" / "pdcluster"
DEPLOYMENT, NAME = "apps/v1/Deployment", "pdcluster-operator"
CLUSTER_WIDE = "clusterrole,clusterrolebinding"
OURS = "app.kubernetes.io/part-of=pdcluster"


class Release:
    """Helm for one release in the test's namespace; the definitions are there already."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._namespace = namespace

    def run(self, *arguments: str) -> CompletedProcess[str]:
        return self._plane.helm(*arguments, "--namespace", self._namespace)

    def put(self, verb: str, *settings: str, wait: str = "60s") -> CompletedProcess[str]:
        flags = [f"--set={setting}" for setting in ("crds.install=false", *settings)]
        return self.run(verb, "pdcluster", str(CHART), "--wait", "--timeout", wait, *flags)


@pytest.fixture
def release(admin: Client, control_plane: ControlPlane) -> Iterator[Release]:
    made = Release(control_plane, admin.namespace)
    yield made
    made.run("uninstall", "pdcluster", "--ignore-not-found")
    shown = json.loads(control_plane.kubectl("get", CLUSTER_WIDE, "-l", OURS, "-o", "json").stdout)
    left = [entry["metadata"] for entry in shown["items"]]
    assert [entry["name"] for entry in left if is_of(entry, admin.namespace)] == [], "uninstalling left something"


def is_of(metadata: Manifest, namespace: str) -> bool:
    """Whether the release in this namespace made it."""
    return bool(metadata.get("annotations", {}).get("meta.helm.sh/release-namespace") == namespace)


async def test_install_upgrade_rollback_uninstall(admin: Client, node: str, release: Release) -> None:
    installed = release.put("install")
    assert installed.returncode == 0, installed.stderr
    assert "kubectl get pdc" in installed.stdout
    assert (await admin.get(DEPLOYMENT, NAME))["status"]["readyReplicas"] == 2

    upgraded = release.put("upgrade", "operator.replicas=3")
    assert upgraded.returncode == 0, upgraded.stderr
    assert (await admin.get(DEPLOYMENT, NAME))["spec"]["replicas"] == 3

    taken_back = release.run("rollback", "pdcluster", "1", "--wait", "--timeout", "60s")
    assert taken_back.returncode == 0, taken_back.stderr
    assert (await admin.get(DEPLOYMENT, NAME))["spec"]["replicas"] == 2

    gone = release.run("uninstall", "pdcluster", "--wait", "--timeout", "60s")
    assert gone.returncode == 0, gone.stderr
    assert await admin.find(DEPLOYMENT, NAME) is None
    assert await admin.list("v1/ServiceAccount", OURS) == []


async def test_an_operator_that_does_not_come_up_fails_the_installation(admin: Client, release: Release) -> None:
    nowhere = "operator.nodeSelector.nothing=like-it"
    failed = release.put("install", nowhere, wait="5s")
    assert failed.returncode != 0
    assert "deadline" in failed.stderr or "timed out" in failed.stderr


def test_the_definitions_are_kept_unless_told_otherwise(control_plane: ControlPlane) -> None:
    for keep, policy in (("true", "keep"), ("false", None)):
        rendered = control_plane.helm("template", "pdcluster", str(CHART), f"--set=crds.keep={keep}")
        objects = [entry for entry in yaml.safe_load_all(rendered.stdout) if entry]
        definitions = [entry for entry in objects if entry["kind"] == "CustomResourceDefinition"]
        assert len(definitions) == 2
        for entry in definitions:
            assert entry["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == policy
    assert (
        control_plane.helm("template", "pdcluster", str(CHART), "--set=crds.install=false").stdout.count("kind: Custom")
        == 0
    )


async def test_the_dashboard_goes_where_grafana_looks_for_it(admin: Client, control_plane: ControlPlane) -> None:
    settings = ("dashboard.enabled=true", "dashboard.labels.kind=board", f"dashboard.namespace={admin.namespace}")
    flags = [f"--set={setting}" for setting in settings]
    rendered = control_plane.helm("template", "pdcluster", str(CHART), "--show-only=templates/dashboard.yaml", *flags)
    applied = control_plane.kubectl("apply", "--server-side", "-f", "-", text=rendered.stdout)
    assert applied.returncode == 0, (rendered.stderr, applied.stderr)

    shown = control_plane.kubectl("get", "configmap", "-n", admin.namespace, "-l", "kind=board", "-o", "json")
    (found,) = json.loads(shown.stdout)["items"]
    assert json.loads(found["data"]["pdcluster.json"])["title"] == "PDCluster"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("metricsAdapter.replica=2", "replica"),
        ("networkPolicy.apiServerPorts={0}", "apiServerPorts"),
        ("watchNamespaces={Not_a_name}", "watchNamespaces"),
        ("operator.replicas=0", "replicas"),
    ],
)
def test_a_value_that_is_none_is_refused(control_plane: ControlPlane, setting: str, words: str) -> None:
    refused = control_plane.helm("template", "pdcluster", str(CHART), f"--set={setting}")
    assert refused.returncode != 0
    assert words in refused.stderr
