"""The chart's rights alone are enough: for the operator in one namespace and in all, and for people who run `pdc`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster_cli import Pdc
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_fixtures import namespace
from cluster_identity import ACCOUNT, CHART, chart_identity, identity_of, refused
from cluster_operator import OperatorProcess, operator_process

pytestmark = pytest.mark.anyio


async def test_a_whole_life_needs_no_right_that_the_chart_does_not_grant(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubeconfig = chart_identity(control_plane, admin.namespace, tmp_path)

    with operator_process(tmp_path, kubeconfig, admin.namespace) as operator:
        await admin.create(cluster())
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
        await admin.delete(STATEFUL_SET, "demo-decode")
        await admin.wait(STATEFUL_SET, "demo-decode", lambda found: found is not None, seconds=30)
        operator.restart()
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
        await admin.delete(CLUSTER, "demo")
        await admin.wait(STATEFUL_SET, "demo-decode", lambda found: found is None, seconds=60)

    assert refused(control_plane, admin.namespace) == []


@pytest.fixture
def everywhere(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of an account with the chart's cluster-wide role, which goes afterwards."""
    yield chart_identity(control_plane, admin.namespace, tmp_path, clusterwide=True)
    for kind in ("clusterrolebinding", "clusterrole"):
        control_plane.kubectl("delete", kind, ACCOUNT, "--ignore-not-found")


async def test_one_operator_serves_all_namespaces_by_the_cluster_wide_role(
    admin: Client, node: str, control_plane: ControlPlane, everywhere: Path, tmp_path: Path
) -> None:
    async with namespace(control_plane) as other:
        with operator_process(tmp_path, everywhere, admin.namespace, PDC_NAMESPACES=""):
            for place in (admin, other):
                await place.create(cluster())
            for place in (admin, other):
                await place.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
                await place.delete(STATEFUL_SET, "demo-decode")
                await place.wait(STATEFUL_SET, "demo-decode", lambda found: found is not None)
            for place in (admin, other):
                await place.delete(CLUSTER, "demo")
                await place.wait(STATEFUL_SET, "demo-decode", lambda found: found is None, seconds=60)

    assert refused(control_plane, admin.namespace) == []


async def person(admin: Client, plane: ControlPlane, folder: Path, role: str) -> Pdc:
    """`pdc` of somebody who has one of the chart's roles for people in the test's namespace, and no other."""
    rendered = plane.helm("template", "pdcluster", str(CHART), "--show-only", "templates/user-roles.yaml")
    rules = {entry["metadata"]["name"]: entry["rules"] for entry in yaml.safe_load_all(rendered.stdout) if entry}
    group, account = "rbac.authorization.k8s.io", {"kind": "ServiceAccount", "name": role, "namespace": admin.namespace}
    await admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role}})
    await admin.create(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": role}, "rules": rules[f"pdcluster-{role}"]}
    )
    reference = {"apiGroup": group, "kind": "Role", "name": role}
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": role}, "subjects": [account]}
    await admin.create({**binding, "roleRef": reference})
    return Pdc(identity_of(plane, admin.namespace, folder, role), admin.namespace)


Command = tuple[str, ...]
DRAIN: Command = ("drain", "demo-decode-1", "--timeout", "60")
PAUSE: Command = ("rollout", "pause", "demo")
EDITING: tuple[Command, ...] = (DRAIN, ("resume", "demo-decode-1"), PAUSE, ("rollout", "resume", "demo"))
READING: tuple[Command, ...] = (
    ("status", "demo"),
    ("why", "decode"),
    ("rollout", "history", "demo"),
    ("rollout", "status", "demo", "--no-watch"),
)


async def test_people_need_one_role_for_pdc(
    admin: Client, node: str, operator: OperatorProcess, control_plane: ControlPlane, tmp_path: Path
) -> None:
    editor = await person(admin, control_plane, tmp_path, "editor")
    viewer = await person(admin, control_plane, tmp_path, "viewer")
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)

    for command in (DRAIN, PAUSE):
        denied = await viewer(*command)
        assert (denied.status, "orbidden" in denied.err) == (1, True), (command, denied)
    for command in (*EDITING, *READING):
        done = await editor(*command)
        assert done.status == 0, (command, done)
    for command in READING:
        done = await viewer(*command)
        assert done.status == 0, (command, done)
    rights = json.loads((await editor("preflight", "-o", "json")).out)["checks"]
    assert [entry["verdict"] for entry in rights if entry["name"] == "rights"] == ["OK"]
