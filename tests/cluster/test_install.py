"""What `kubectl apply -k` installs is the chart's own rendering, and the API server takes it."""

from pathlib import Path

import yaml
from cluster_control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "manifests" / "install"


def test_the_plain_manifests_are_the_chart_rendered(control_plane: ControlPlane) -> None:
    chart = ROOT / "charts" / "pdcluster"
    rendered = control_plane.helm("template", "pdcluster", str(chart), "--namespace", "pdcluster-system")
    written = (INSTALL / "operator.yaml").read_text()

    assert rendered.returncode == 0, rendered.stderr
    assert list(yaml.safe_load_all(written)) == list(yaml.safe_load_all(rendered.stdout))


def test_kubectl_applies_the_plain_manifests(control_plane: ControlPlane) -> None:
    try:
        applied = control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(INSTALL))
        assert applied.returncode == 0, applied.stderr
    finally:
        kinds = "deployment,poddisruptionbudget,serviceaccount,role,rolebinding"
        control_plane.kubectl("delete", "-n", "pdcluster-system", kinds, "-l", "app.kubernetes.io/part-of=pdcluster")
        control_plane.kubectl(
            "delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=pdcluster", "--wait=false"
        )
        control_plane.kubectl("delete", "namespace", "pdcluster-system", "--wait=false")
