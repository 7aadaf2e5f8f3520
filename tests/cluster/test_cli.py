"""`pdc` against a real control plane with the real operator: every command, as a person runs it."""

import json
from typing import Any

import pytest
from cluster_cli import Pdc
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, cluster, has_condition
from cluster_operator import OperatorProcess

pytestmark = pytest.mark.anyio

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}


@pytest.fixture
def pdc(admin: Client, control_plane: ControlPlane) -> Pdc:
    return Pdc(control_plane.kubeconfig, admin.namespace)


async def ready(admin: Client, **edit: Any) -> Manifest:
    await admin.create(cluster(**edit))
    found = await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
    assert found is not None
    return found


def note(found: Manifest | None, name: str) -> str:
    return str((found or {}).get("metadata", {}).get("annotations", {}).get(f"pdcluster.dev/{name}", ""))


async def test_status_shows_one_and_all(admin: Client, node: str, operator: OperatorProcess, pdc: Pdc) -> None:
    await ready(admin)

    told = (await pdc("status", "demo", "-o", "json")).json()
    assert {entry["type"]: entry["status"] for entry in told["conditions"]}["Ready"] == "True"
    assert {entry["name"]: (entry["effective"], entry["ready"]) for entry in told["roles"]} == {
        "prefill": (2, 2),
        "decode": (2, 2),
        "router": (1, 1),
    }
    assert [pod["role"] for pod in told["pods"]] == ["prefill", "prefill", "decode", "decode", "router"]
    assert {pod["node"] for pod in told["pods"]} == {node}
    assert {pod["revision"] for pod in told["pods"]} == {told["revisions"]["current"], ""}

    table = await pdc("status")
    assert table.status == 0, table.err
    for word in ("demo-decode-1", "RevisionCoherent", "OneRevision", "LIMITED BY", node):
        assert word in table.out
    everywhere = (await pdc("status", "-A", "-o", "json")).json()
    assert (admin.namespace, "demo") in {(entry["namespace"], entry["name"]) for entry in everywhere["items"]}
    assert "conditions:" in (await pdc("status", "demo", "-o", "yaml")).out
    plugin = await pdc.run("kubectl-pdc", "status", "demo", "-n", admin.namespace)
    assert (plugin.status, "demo-router" in plugin.out) == (0, True)


async def test_status_follows_changes(admin: Client, node: str, operator: OperatorProcess, pdc: Pdc) -> None:
    await ready(admin)
    async with pdc.lines("status", "demo", "--watch", "-o", "json") as lines:
        first = json.loads(await anext(lines))
        assert len(first["pods"]) == 5
        await admin.merge(CLUSTER, "demo", {"spec": {"decode": {"replicas": 3}}})
        async for line in lines:
            told = json.loads(line)
            if sum(pod["ready"] for pod in told["pods"]) == 6:
                break


async def test_what_is_not_there_is_one_clear_line(admin: Client, pdc: Pdc, control_plane: ControlPlane) -> None:
    for arguments, words in (
        (("status", "demo"), f"there is no PDCluster demo in namespace {admin.namespace}"),
        (("why", "decode"), f"there is no PDCluster in namespace {admin.namespace}"),
        (("drain", "nobody"), f"there is no pod nobody in namespace {admin.namespace}"),
        (("rollout", "undo", "demo"), "there is no PDCluster demo"),
        (("status", "--context", "nowhere"), "has no context nowhere"),
        (("status", "--kubeconfig", "/nowhere"), "there is no kubeconfig /nowhere"),
    ):
        answer = await pdc(*arguments)
        assert answer.status == 1
        assert words in answer.err
        assert (answer.err.startswith("pdc: "), answer.err.count("\n"), answer.out) == (True, 1, "")


async def test_a_drained_worker_stays_out_until_it_is_resumed(
    admin: Client, node: str, operator: OperatorProcess, pdc: Pdc
) -> None:
    await ready(admin)
    before = await admin.get("v1/Pod", "demo-decode-0")

    answer = await pdc("drain", "demo-decode-0", "--timeout", "60")
    assert answer.status == 0, answer.err
    assert "is drained" in answer.out
    operator.restart()
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    drained = await admin.get("v1/Pod", "demo-decode-0")
    assert drained["metadata"]["uid"] == before["metadata"]["uid"]
    assert note(drained, "drained") == "0"
    assert "pdcluster.dev/counted" not in drained["metadata"]["labels"]
    told = (await pdc("status", "demo", "-o", "json")).json()
    assert {pod["name"]: pod["drain"] for pod in told["pods"]}["demo-decode-0"] == "drained"
    assert "demo-decode-0 is drained on request" in (await pdc("why", "decode")).out

    answer = await pdc("resume", "demo-decode-0")
    assert (answer.status, answer.out) == (0, "pod demo-decode-0 is in service\n"), answer.err
    resumed = await admin.get("v1/Pod", "demo-decode-0")
    assert resumed["metadata"]["labels"]["pdcluster.dev/counted"] == "true"
    assert note(resumed, "drain-uid") == note(resumed, "drained") == ""


async def test_a_drain_ends_with_its_pod_and_is_for_workers_only(
    admin: Client, node: str, operator: OperatorProcess, pdc: Pdc
) -> None:
    await ready(admin)
    assert (await pdc("drain", "demo-prefill-1")).status == 0
    old = (await admin.get("v1/Pod", "demo-prefill-1"))["metadata"]["uid"]
    await admin.delete("v1/Pod", "demo-prefill-1", gracePeriodSeconds=0)
    new = await admin.wait("v1/Pod", "demo-prefill-1", lambda found: bool(found) and found["metadata"]["uid"] != old)
    assert note(new, "drain") == ""
    router = (await admin.list("v1/Pod", "pdcluster.dev/role=router"))[0]["metadata"]["name"]
    assert "only workers drain" in (await pdc("drain", router)).err

    await admin.merge(CLUSTER, "demo", {"spec": {"drain": {"timeoutSeconds": 600}}})
    late = await pdc("drain", "demo-prefill-0", "--timeout", "3")
    assert late.status == 1
    assert "after 3 s" in late.err


async def test_a_rollout_is_held_followed_and_taken_back(
    admin: Client, node: str, operator: OperatorProcess, pdc: Pdc
) -> None:
    first = (await ready(admin, decode__replicas=None, decode__scaling=EXTERNAL))["status"]["currentRevision"]
    assert (await pdc("rollout", "status", "demo", "--timeout", "5")).status == 0
    assert (await pdc("rollout", "pause", "demo")).out == "demo: rollouts paused\n"
    await admin.merge(CLUSTER, "demo", {"spec": {"engine": {"prepareThreads": 7}}})
    await admin.wait(CLUSTER, "demo", has_condition("RevisionCoherent", "False", "Paused"), seconds=30)

    held = await pdc("rollout", "status", "--no-watch")
    assert (held.status, "paused: 0 of 3 pods" in held.out) == (0, True), held
    assert (await pdc("rollout", "status", "--timeout", "1")).status == 1
    assert (await pdc("rollout", "resume", "demo")).out == "demo: rollouts resumed\n"
    followed = await pdc("rollout", "status", "--timeout", "80")
    assert (followed.status, "rolled out, 3 of 3 pods" in followed.out) == (0, True), followed

    found = (await pdc("rollout", "history", "demo", "-o", "json")).json()["revisions"]
    assert [(entry["number"], entry["pods"], entry["target"]) for entry in found] == [(1, 0, False), (2, 3, True)]
    assert found[1]["changes"] == ["engine"]
    undone = await pdc("rollout", "undo", "demo")
    assert (undone.status, f"revision 1 ({first})" in undone.out) == (0, True), undone
    assert (await pdc("rollout", "status", "--timeout", "80")).status == 0
    last = await admin.get(CLUSTER, "demo")
    assert last["status"]["currentRevision"] == first
    assert last["spec"]["decode"]["scaling"]["mode"] == "External", "what changes no pod stays"
    again = await pdc("rollout", "undo", "demo", "--to-revision", "1")
    assert "what the spec says already" in again.out
    assert "kept are 1, 2" in (await pdc("rollout", "undo", "demo", "--to-revision", "9")).err


async def test_why_tells_what_limits(admin: Client, node: str, operator: OperatorProcess, pdc: Pdc) -> None:
    await ready(admin, decode__replicas=None, decode__scaling=EXTERNAL, decode__gpu={"count": 1})
    causes = {entry["cause"] for entry in (await pdc("why", "decode", "-o", "json")).json()["findings"]}
    assert causes == {"Scaler", "AutoscalerMissing", "Nothing"}

    await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": 9}}, "scale")
    await admin.wait(SCALER, "demo-decode", lambda found: (found or {})["status"].get("readyReplicas") == 4)
    answer = await pdc("why", "decode", "--cluster", "demo")
    assert "spec.decode.scaling.maxReplicas is 4: 9 is lowered to 4" in answer.out

    await admin.merge(CLUSTER, "demo", {"spec": {"decode": {"scaling": {"maxReplicas": 12}}}})
    await admin.wait("v1/Pod", "demo-decode-8", lambda found: found is not None)
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "InsufficientCapacity"))
    answer = await pdc("why", "decode")
    assert "has no node: Unschedulable:" in answer.out
    assert "nvidia.com/gpu" in answer.out
    assert "has no role mixed; it has prefill, decode" in (await pdc("why", "mixed")).err


async def test_why_tells_of_a_quota(admin: Client, node: str, operator: OperatorProcess, pdc: Pdc) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "4"}}}
    await admin.create(quota)
    await admin.wait("v1/ResourceQuota", "few", lambda found: "hard" in (found or {}).get("status", {}))
    await admin.create(cluster(decode__replicas=6))
    events = admin.path("v1/Event")
    async for change in admin.follow(events, {"fieldSelector": "reason=FailedCreate,involvedObject.name=demo-decode"}):
        if change.listed or change.changed:
            break
    assert "exceeded quota: few" in (await pdc("why", "decode")).out


async def test_preflight_of_a_ready_cluster_and_of_one_that_is_not(
    admin: Client, node: str, operator: OperatorProcess, pdc: Pdc
) -> None:
    await ready(admin)
    fitting = json.dumps({**cluster(), "metadata": {"name": "next"}})
    answer = await pdc("preflight", "-f", "-", "-o", "json", text=fitting)
    checks = {entry["name"]: entry for entry in answer.json()["checks"]}
    assert checks["crd pdclusters.pdcluster.dev"]["verdict"] == "OK", checks
    assert checks["operator"]["verdict"] == checks["manifest"]["verdict"] == checks["rights"]["verdict"] == "OK"

    level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await admin.merge("v1/Namespace", admin.namespace, level)
    managed = {"mode": "Managed", "minReplicas": 1, "maxReplicas": 2}
    greedy = cluster(decode__gpu={"count": 1}, prefill__replicas=None, prefill__scaling=managed)
    greedy["spec"]["decode"]["nodeSelector"] = {"no": "such"}
    greedy["spec"]["router"] = {"apiKeySecretRef": {"name": "keys"}}
    answer = await pdc("preflight", "-f", "-", "-o", "json", text=json.dumps(greedy))
    assert answer.status == 1
    failed = {entry["name"] for entry in json.loads(answer.out)["checks"] if entry["verdict"] == "FAIL"}
    assert failed == {f"namespace {admin.namespace}", "devices", "metrics", "secret keys"}
    table = await pdc("preflight", "-f", "-", text=json.dumps(greedy))
    assert (table.status, "-> kubectl label namespace" in table.out) == (1, True)


async def test_a_caller_without_rights_is_told(admin: Client, pdc: Pdc, control_plane: ControlPlane) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}}
    await admin.create(account)
    made = control_plane.kubectl("create", "token", "guest", "-n", admin.namespace)
    token = made.stdout.strip()
    path = control_plane.folder / f"guest-{admin.namespace}.yaml"
    shown = control_plane.kubectl("config", "view", "--raw", "-o", "json")
    content = json.loads(shown.stdout)
    content["users"] = [{"name": user["name"], "user": {"token": token}} for user in content["users"]]
    path.write_text(json.dumps(content))
    answer = await Pdc(path, admin.namespace)("status")
    assert answer.status == 1
    assert "Forbidden" in answer.err
    assert answer.err.count("\n") == 1
    answer = await Pdc(path, admin.namespace)("preflight", "-o", "json")
    assert {entry["verdict"] for entry in json.loads(answer.out)["checks"] if entry["name"] == "rights"} == {"WARN"}
