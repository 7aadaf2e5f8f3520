"""What a person sees of a PDCluster: columns, `kubectl wait`, reasons, events; and nothing is sent at rest."""

import asyncio
import itertools
import json
from collections import Counter

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_identity import chart_identity
from cluster_operator import OperatorProcess, operator_process, turns

pytestmark = pytest.mark.anyio

NOWHERE = {"podTemplate": {"spec": {"nodeSelector": {"example.invalid/slot": "b"}}}}
ADMIN = "test-admin"
EVENT = "events.k8s.io/v1/Event"


async def kubectl(control_plane: ControlPlane, admin: Client, *arguments: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(control_plane.kubectl, "-n", admin.namespace, *arguments)
    return done.returncode, done.stdout, done.stderr


async def test_the_columns_tell_what_there_is(
    admin: Client, node: str, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    external = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
    await admin.create(cluster(decode__replicas=None, decode__scaling=external))
    status, _, told = await kubectl(control_plane, admin, "wait", "--for=condition=Ready", "pdc/demo", "--timeout=60s")
    assert status == 0, told

    revision = (await admin.get(CLUSTER, "demo"))["status"]["currentRevision"]
    _, table, _ = await kubectl(control_plane, admin, "get", "pdc")
    head, row = [line.split() for line in table.splitlines()]
    assert head == ["NAME", "READY", "AVAILABLE", "PREFILL", "DECODE", "RATIO", "REVISION", "AGE"]
    assert row[:-1] == ["demo", "True", "True", "2/2", "1/1", "2:1", revision]
    _, table, _ = await kubectl(control_plane, admin, "get", "pdrs")
    head, row = [line.split() for line in table.splitlines()]
    assert dict(zip(head, row, strict=False)) | {"AGE": ""} == {
        "NAME": "demo-decode",
        "CLUSTER": "demo",
        "ROLE": "decode",
        "DESIRED": "1",
        "EFFECTIVE": "1",
        "READY": "1",
        "LIMITEDBY": row[-2] if len(row) == len(head) else row[-1],
        "AGE": "",
    }
    _, wide, _ = await kubectl(control_plane, admin, "get", "pdc", "-o", "wide")
    assert "AllReady" in wide.splitlines()[1]


async def test_an_image_that_cannot_be_pulled_is_told_by_pod_and_name(
    admin: Client, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    await admin.create(cluster(engine={"image": "example.invalid/missing:1"}))
    await admin.wait("v1/Pod", "demo-decode-0", lambda found: found is not None, seconds=60)
    words = 'Back-off pulling image "example.invalid/missing:1"'
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": words}}
    state = {"name": "worker", "image": "example.invalid/missing:1", "imageID": "", "ready": False, "restartCount": 0}
    await admin.merge(
        "v1/Pod", "demo-decode-0", {"status": {"containerStatuses": [{**state, "state": waiting}]}}, "status"
    )

    found = await admin.wait(CLUSTER, "demo", has_condition("Ready", "False", "ImageUnavailable"))

    ready = next(entry for entry in (found or {})["status"]["conditions"] if entry["type"] == "Ready")
    assert ready["message"] == f"demo-decode-0: ImagePullBackOff: {words}"
    status, _, told = await kubectl(control_plane, admin, "wait", "--for=condition=Ready", "pdc/demo", "--timeout=2s")
    assert status == 1
    assert "timed out waiting for the condition" in told


async def test_a_revision_that_finds_no_place_stalls_and_an_undo_ends_that(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster(rollout={"progressDeadlineSeconds": 2}))
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    await admin.merge(CLUSTER, "demo", {"spec": {"prefill": NOWHERE, "decode": NOWHERE}})

    found = await admin.wait(CLUSTER, "demo", has_condition("Progressing", "False", "RolloutStalled"), seconds=60)

    assert has_condition("Ready", "False")(found)
    assert has_condition("Available", "True")(found)
    pods = await admin.list("v1/Pod", "pdcluster.dev/role in (prefill,decode)")
    assert Counter(pod["status"]["phase"] for pod in pods) == {"Running": 3, "Pending": 1}
    await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"podTemplate": None}, "decode": {"podTemplate": None}}})
    await admin.wait(CLUSTER, "demo", has_condition("RevisionCoherent", "True"), seconds=60)
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)


async def test_the_only_pair_being_replaced_is_a_gap_with_a_name(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster(prefill__replicas=1, decode__replicas=1))
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    await admin.merge(CLUSTER, "demo", {"spec": {"prefill": NOWHERE, "decode": NOWHERE}})

    await admin.wait(CLUSTER, "demo", has_condition("Available", "False", "SingleReplicaGap"), seconds=60)
    await admin.merge("v1/Node", node, {"metadata": {"labels": {"example.invalid/slot": "b"}}})

    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)


async def events(admin: Client) -> list[Manifest]:
    found = [entry for entry in await admin.list(EVENT) if entry["regarding"]["kind"] == "PDCluster"]
    return sorted(found, key=lambda entry: str(entry["eventTime"]))


async def test_an_event_tells_a_transition_once(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path
) -> None:
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, PDC_RESYNC_SECONDS="0.2"
    ) as operator:
        await admin.create(cluster())
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        changed = await admin.merge(CLUSTER, "demo", {"spec": {"engine": {"prepareThreads": 7}}})

        def done(found: Manifest | None) -> bool:
            status = (found or {})["status"]
            current = status["observedGeneration"] >= changed["metadata"]["generation"]
            return current and has_condition("Ready", "True")(found)

        await admin.wait(CLUSTER, "demo", done, seconds=60)
        await turns(operator, 3)
        before = await events(admin)
        await turns(operator, 10)
        await asyncio.to_thread(operator.restart)
        await turns(operator, 10)

        assert await events(admin) == before
        for kind in ("Ready", "Progressing", "RevisionCoherent"):
            told = [entry["note"].partition(":")[0] for entry in before if entry["note"].startswith(f"{kind} is ")]
            assert told, kind
            assert all(one != other for one, other in itertools.pairwise(told)), told


async def test_nothing_is_sent_over_ten_resyncs_at_rest(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path
) -> None:
    external = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, PDC_RESYNC_SECONDS="0.2"
    ) as operator:
        await admin.create(cluster(decode__replicas=None, decode__scaling=external))
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": 3}}, "scale")
        await admin.wait(STATEFUL_SET, "demo-decode", replicas(3))
        await admin.wait(CLUSTER, "demo", lambda found: (found or {})["status"]["summary"]["decode"] == "3/3")
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"))
        await turns(operator, 3)
        before = requests(control_plane, admin.namespace)

        await turns(operator, 10)

        assert requests(control_plane, admin.namespace) - before == Counter()
        assert (await admin.get(SCALER, "demo-decode"))["spec"]["replicas"] == 3, "what was told last stays"


def requests(control_plane: ControlPlane, namespace: str) -> Counter[tuple[str, str]]:
    """By verb and kind, those of the user whom test and operator share; the test itself waits meanwhile."""
    found: Counter[tuple[str, str]] = Counter()
    for line in (control_plane.folder / "audit.log").read_text().splitlines():
        entry = json.loads(line)
        target = entry.get("objectRef", {})
        is_lease = target.get("resource") == "leases"
        if target.get("namespace") == namespace and entry["user"]["username"] == ADMIN and not is_lease:
            found[entry["verb"], target.get("resource", "")] += 1
    return found
