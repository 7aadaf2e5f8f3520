"""The operator's identity in tests: a ServiceAccount with what the chart grants it, and nothing else."""

import json
from pathlib import Path

from cluster_control_plane import TRUST, ControlPlane, write_kubeconfig

CHART = Path(__file__).resolve().parents[2] / "charts" / "pdcluster"
ACCOUNT = "pdcluster-operator"
ENDING = "because it is being terminated"
"""In a namespace that ends, as those of earlier tests do, nobody has the right to make anything."""


def chart_identity(plane: ControlPlane, namespace: str, folder: Path, *, clusterwide: bool = False) -> Path:
    """A kubeconfig with `chart_token`'s token."""
    token = chart_token(plane, namespace, clusterwide=clusterwide)
    return write_kubeconfig(folder / "operator.kubeconfig", plane.server, plane.folder / TRUST, token)


def chart_token(plane: ControlPlane, namespace: str, *, clusterwide: bool = False) -> str:
    """Of the chart's ServiceAccount in `namespace`, which gets the chart's roles; RuntimeError says why not."""
    watched = [] if clusterwide else ["--set", f"watchNamespaces={{{namespace}}}"]
    only = ["--show-only", "templates/operator-rbac.yaml"]
    rendered = plane.helm("template", "pdcluster", str(CHART), "--namespace", namespace, *only, *watched)
    _check(rendered.returncode, rendered.stderr)
    applied = plane.kubectl("apply", "--server-side", "-f", "-", text=rendered.stdout)
    _check(applied.returncode, applied.stderr)
    return token_of(plane, namespace, ACCOUNT)


def identity_of(plane: ControlPlane, namespace: str, folder: Path, account: str = ACCOUNT) -> Path:
    """A kubeconfig of an account that is there already."""
    token = token_of(plane, namespace, account)
    return write_kubeconfig(folder / f"{account}.kubeconfig", plane.server, plane.folder / TRUST, token)


def token_of(plane: ControlPlane, namespace: str, account: str) -> str:
    made = plane.kubectl("create", "token", account, "--namespace", namespace, "--duration", "2h")
    _check(made.returncode, made.stderr)
    return made.stdout.strip()


def refused(plane: ControlPlane, namespace: str) -> list[str]:
    """Every request of that account that the API server refused for want of a right, as it stands in the audit log."""
    user = f"system:serviceaccount:{namespace}:{ACCOUNT}"
    events = [json.loads(line) for line in (plane.folder / "audit.log").read_text().splitlines() if user in line]
    own = [event for event in events if event["user"]["username"] == user and event["responseStatus"]["code"] == 403]
    lacking = [event for event in own if ENDING not in event["responseStatus"].get("message", "")]
    return [f"{event['verb']} {event['requestURI']}" for event in lacking]


def _check(status: int, words: str) -> None:
    if status:
        raise RuntimeError(words)
