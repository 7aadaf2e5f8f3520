"""plan() for any shape of cluster: every pod once, every port its own, nothing taken from thin air."""

from hypothesis import given
from hypothesis import strategies as st
from operator_manifests import edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.naming import pod_name
from pdcluster_operator.desired.pod import Ports
from pdcluster_operator.plan.plan import plan
from pdcluster_operator.plan.site import ClusterSite, LocalSite

CPU = st.none() | st.integers(1, 9) | st.sampled_from(["100m", "2500m", "3"])


@st.composite
def clusters(draw):
    changes = {"metadata.name": draw(st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True))}
    for role in ("prefill", "decode"):
        changes[f"spec.{role}.replicas"] = draw(st.integers(1, 5))
        if (cpu := draw(CPU)) is not None:
            changes[f"spec.{role}.resources"] = {"limits": {"cpu": cpu}}
    if draw(st.booleans()):
        changes["spec.mixed"] = {"replicas": draw(st.integers(0, 3)), "gpu": {"count": 0}}
    changes["spec.engine"] = draw(st.fixed_dictionaries({}, optional={"blockSize": st.integers(1, 256)}))
    return parse(edited(changes))


def site(cluster, cores):
    names = [
        pod_name(cluster.metadata.name, name, i)
        for name, role in cluster.spec.roles().items()
        for i in range(role.first_replicas)
    ]
    ports = {name: Ports(grpc=2 * index + 1, metrics=2 * index + 2) for index, name in enumerate(names)}
    ports[pod_name(cluster.metadata.name, "router", 0)] = Ports(http=60000)
    return LocalSite(model_path="/m", cores=tuple(range(cores)), ports=ports)


@given(clusters(), st.integers(1, 12))
def test_every_pod_once_with_ports_of_its_own(cluster, cores):
    found = plan(cluster, site(cluster, cores))
    wanted = sum(role.first_replicas for role in cluster.spec.roles().values())
    assert len({pod.name for pod in found.pods}) == len(found.pods) == wanted + 1
    ports = [port for pod in found.pods for port in (pod.ports.grpc, pod.ports.metrics, pod.ports.http) if port]
    assert len(ports) == len(set(ports))


@given(clusters(), st.integers(1, 12))
def test_cores_exist_and_match_the_threads(cluster, cores):
    for pod in plan(cluster, site(cluster, cores)).workers:
        assert 1 <= pod.cpu.threads <= cores
        assert set(pod.cpu.affinity) <= set(range(cores))
        assert len(set(pod.cpu.affinity)) in (0, pod.cpu.threads)


@given(clusters(), st.integers(1, 12))
def test_the_router_knows_exactly_the_workers(cluster, cores):
    found = plan(cluster, site(cluster, cores))
    known = [
        after for flag, after in zip(found.router.command, found.router.command[1:], strict=False) if flag == "--worker"
    ]
    assert known == [f"{pod.role}={pod.advertise}" for pod in found.workers]


@given(clusters())
def test_the_same_input_gives_the_same_plan_and_revision(cluster):
    again = parse(cluster.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert plan(cluster, site(cluster, 4)) == plan(again, site(again, 4))
    assert plan(cluster, site(cluster, 4)).revision == plan(cluster, ClusterSite()).revision


@given(clusters(), st.integers(1, 9))
def test_scaling_changes_no_revision(cluster, replicas):
    document = cluster.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["prefill"]["replicas"] = replicas
    assert plan(parse(document), ClusterSite()).revision == plan(cluster, ClusterSite()).revision
