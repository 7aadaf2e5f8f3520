"""The operator on a real API server: children made, kept, repaired and removed; nothing written at rest."""

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_operator import OperatorProcess

pytestmark = pytest.mark.anyio


async def test_a_cluster_becomes_ready(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(cluster())

    found = await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)

    assert found is not None
    assert found["status"]["summary"] == {"prefill": "2/2", "decode": "2/2", "router": "1/1", "limitedBy": ""}
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo")
    assert sorted(pod["metadata"]["labels"]["pdcluster.dev/role"] for pod in pods) == [
        "decode",
        "decode",
        "prefill",
        "prefill",
        "router",
    ]


async def test_nothing_is_sent_at_rest(
    admin: Client, node: str, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    before = await versions(admin)

    operator.restart()
    await admin.merge(CLUSTER, "demo", {"metadata": {"annotations": {"touched": "yes"}}})
    await admin.create(cluster() | {"metadata": {"name": "second"}})
    await admin.wait(CLUSTER, "second", has_condition("Ready", "True"), seconds=60)

    assert {key: version for key, version in (await versions(admin)).items() if key in before} == before


async def versions(admin: Client) -> dict[str, str]:
    """The resourceVersion of every child of demo that does not change by itself."""
    kinds = ["v1/Service", "v1/ServiceAccount", "apps/v1/ControllerRevision", "v1/Secret", STATEFUL_SET]
    kinds += ["apps/v1/Deployment", "networking.k8s.io/v1/NetworkPolicy", "rbac.authorization.k8s.io/v1/Role"]
    found = {}
    for kind in kinds:
        for child in await admin.list(kind, "pdcluster.dev/cluster=demo"):
            mark = "generation" if "generation" in child["metadata"] else "resourceVersion"
            found[f"{kind}/{child['metadata']['name']}"] = str(child["metadata"][mark])
    return found


async def test_children_that_the_spec_drops_are_removed(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(cluster(mixed={"replicas": 1, "gpu": {"count": 0}}))
    await admin.wait(STATEFUL_SET, "demo-mixed", lambda found: found is not None, seconds=60)

    await admin.merge(CLUSTER, "demo", {"spec": {"mixed": None, "disruption": {"pdb": False}}})

    await admin.wait(STATEFUL_SET, "demo-mixed", lambda found: found is None)
    await admin.wait("policy/v1/PodDisruptionBudget", "demo-router", lambda found: found is None)
    assert await admin.find(STATEFUL_SET, "demo-prefill")


async def test_a_foreign_object_of_a_childs_name_is_left_alone(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "demo-router"},
        "spec": {"ports": [{"port": 9}]},
    }
    made = await admin.create(foreign)
    await admin.create(cluster())

    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "NameConflict"), seconds=30)

    assert found is not None
    assert (await admin.get("v1/Service", "demo-router"))["metadata"]["resourceVersion"] == made["metadata"][
        "resourceVersion"
    ]
    assert await admin.find(STATEFUL_SET, "demo-prefill"), "the other children are made all the same"


async def test_a_deleted_cluster_takes_its_children_along(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)

    await admin.delete(CLUSTER, "demo")

    for kind in (STATEFUL_SET, "v1/Service", "apps/v1/Deployment", "v1/Secret", "apps/v1/ControllerRevision"):
        names = [child["metadata"]["name"] for child in await admin.list(kind, "pdcluster.dev/cluster=demo")]
        for name in names:
            await admin.wait(kind, name, lambda found: found is None)
