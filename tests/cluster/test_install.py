"""What `kubectl apply -k` installs is the chart's own rendering, and the API server takes it."""

from pathlib import Path

import yaml
from cluster_control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "manifests" / "install"


def test_the_plain_manifests_are_the_chart_rendered(control_plane: ControlPlane) -> None:
    chart = ROOT / "charts" / "pdcluster"
    rendered = control_plane.helm(
        "template", "pdcluster", str(chart), "--namespace", "pdcluster-system", "--skip-tests"
    )
    written = (INSTALL / "operator.yaml").read_text()

    assert rendered.returncode == 0, rendered.stderr
    assert list(yaml.safe_load_all(written)) == list(yaml.safe_load_all(rendered.stdout))


def test_kubectl_applies_the_plain_manifests(control_plane: ControlPlane) -> None:
    try:
        applied = control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(INSTALL))
        assert applied.returncode == 0, applied.stderr
    finally:
        for kind, name in made():
            control_plane.kubectl("delete", kind, name, "-n", "pdcluster-system", "--ignore-not-found", "--wait=false")


def made() -> list[tuple[str, str]]:
    """Kind and name of what the manifests make, the namespace last; not of the definitions, which other tests need."""
    manifests = list(yaml.safe_load_all((INSTALL / "operator.yaml").read_text()))
    namespace = yaml.safe_load((INSTALL / "namespace.yaml").read_text())
    found = [(entry["kind"], entry["metadata"]["name"]) for entry in (*manifests, namespace) if entry]
    return [(kind, name) for kind, name in found if kind != "CustomResourceDefinition"]
