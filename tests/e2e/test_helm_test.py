"""`helm test`: the chart's test pod runs as a process here, succeeds when all is well, and says what is not."""

import asyncio
import contextlib
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cluster_client import ApiError, Client
from cluster_control_plane import ControlPlane
from cluster_identity import ACCOUNT, CHART, identity_of
from cluster_operator import operator_process
from kubelet_agent import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

NAME = "pdcluster-test"
NOWHERE = "operator.nodeSelector.nowhere=yes"
"""The operator is a process of the test, not a pod."""


async def test_the_installation_is_tested_by_its_own_pod(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async def helm(*arguments: str) -> CompletedProcess[str]:
        return await asyncio.to_thread(control_plane.helm, *arguments, "--namespace", admin.namespace)

    installed = await helm("install", "pdcluster", str(CHART), "--set=crds.install=false", f"--set={NOWHERE}")
    assert installed.returncode == 0, installed.stderr
    try:
        await forget_operators(admin)
        failed = await helm("test", "pdcluster", "--timeout", "60s")
        assert failed.returncode != 0
        log = found_log(tmp_path)
        assert "there is no Lease of it" in log

        account = await asyncio.to_thread(identity_of, control_plane, admin.namespace, tmp_path)
        with operator_process(tmp_path, account, admin.namespace, PDC_NAMESPACES=""):
            passed = await helm("test", "pdcluster", "--timeout", "60s")
        assert passed.returncode == 0, passed.stderr
        assert "Succeeded" in passed.stdout
        await admin.wait("v1/Pod", NAME, lambda found: found is None)
        assert await admin.find("v1/ServiceAccount", NAME) is None
        assert await admin.find("rbac.authorization.k8s.io/v1/ClusterRole", f"{NAME}-{admin.namespace}") is None
    finally:
        await helm("uninstall", "pdcluster")


async def forget_operators(admin: Client) -> None:
    """Takes away the Leases of operators of earlier tests, whose namespaces are still going."""
    found = await admin.call(
        "GET", "/apis/coordination.k8s.io/v1/leases", {"fieldSelector": f"metadata.name={ACCOUNT}"}
    )
    for lease in found["items"]:
        with contextlib.suppress(ApiError):  # its namespace was quicker
            await admin.within(lease["metadata"]["namespace"]).delete("coordination.k8s.io/v1/Lease", ACCOUNT)


def found_log(folder: Path) -> str:
    """What the test's container wrote, wherever the node keeps it."""
    return "".join(path.read_text() for path in folder.rglob("preflight.log"))
