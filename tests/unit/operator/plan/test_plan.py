"""plan(): the pods of a manifest, with their command lines."""

import pytest
from operator_manifests import edited, sample_files

from pdcluster_operator.crd.parse import parse, parse_text
from pdcluster_operator.desired.naming import pod_name
from pdcluster_operator.desired.pod import Ports, TLSPaths
from pdcluster_operator.plan.plan import plan
from pdcluster_operator.plan.site import ClusterSite, LocalSite


def local_site(cluster, **settings):
    names = [
        pod_name(cluster.metadata.name, role_name, index)
        for role_name, role in cluster.spec.roles().items()
        for index in range(role.first_replicas)
    ]
    ports = {name: Ports(grpc=9000 + index, metrics=9100 + index) for index, name in enumerate(names)}
    ports[pod_name(cluster.metadata.name, "router", 0)] = Ports(http=8000)
    return LocalSite(**{"model_path": "/m", "cores": (0, 1, 2, 3), "ports": ports, **settings})


def planned(changes=None, **settings):
    cluster = parse(edited(changes))
    return plan(cluster, local_site(cluster, **settings))


def flags(pod, name):
    """All values of a flag."""
    return [value for flag, value in zip(pod.command, pod.command[1:], strict=False) if flag == name]


def test_one_pod_per_replica_and_a_router():
    found = planned()
    names = ["demo-prefill-0", "demo-prefill-1", "demo-decode-0", "demo-decode-1", "demo-router-0"]
    assert [pod.name for pod in found.pods] == names
    assert [pod.role for pod in found.pods] == ["prefill", "prefill", "decode", "decode", "router"]


def test_the_router_knows_every_worker():
    found = planned()
    expected = [
        "prefill=127.0.0.1:9000",
        "prefill=127.0.0.1:9001",
        "decode=127.0.0.1:9002",
        "decode=127.0.0.1:9003",
    ]
    assert flags(found.router, "--worker") == expected
    assert flags(found.router, "--port") == ["8000"]


def test_a_worker_command():
    worker = planned({"spec.decode.engine": {"kvBlocks": 7}, "spec.engine.prefixCaching": False}).workers[2]
    assert worker.command[:3] == ("-m", "pdcluster_worker", "worker")
    assert flags(worker, "--role") == ["decode"]
    assert flags(worker, "--name") == ["demo-decode-0"]
    assert flags(worker, "--model-path") == ["/m"]
    assert flags(worker, "--kv-protocol") == ["IPC"]
    assert flags(worker, "--kv-blocks") == ["7"]
    assert flags(worker, "--prepare-threads") == ["5"]
    assert flags(worker, "--cluster") == ["demo.default"]
    assert "--no-prefix-caching" in worker.command
    assert "--tls-cert" not in worker.command


def test_all_pods_share_one_revision():
    found = planned()
    assert {flags(pod, "--revision")[0] for pod in found.pods} == {found.revision}


@pytest.mark.parametrize(
    ("changes", "equal"),
    [
        ({"spec.prefill.replicas": 5}, True),
        ({"spec.router.maxQueue": 7}, True),
        ({"spec.engine.blockSize": 64}, True),
        ({"spec.rollout.paused": True}, True),
        ({"spec.drain.timeoutSeconds": 60}, False),
        ({"spec.security.networkPolicy": False}, True),
        ({"spec.engine.maxBatchTokens": 64}, False),
        ({"spec.prefill.gpu.count": 1}, False),
        ({"spec.transport.kv.protocol": "TCP"}, False),
        ({"spec.model.source.hostPath.path": "other"}, False),
        ({"spec.tls.mode": "Disabled"}, False),
        ({"spec.prefill.env": [{"name": "A", "value": "b"}]}, False),
    ],
)
def test_the_revision_covers_what_pods_are(changes, equal):
    assert (planned(changes).revision == planned().revision) is equal


def test_rdma_without_a_device_is_shared_memory():
    rdma = {"spec.transport.kv.protocol": "RDMA"}
    assert planned(rdma).protocol == "IPC"
    assert planned(rdma, has_rdma=True).protocol == "RDMA"


def test_a_relative_profile_starts_from_the_manifest():
    simulated = {"spec.engine": {"runner": "Simulated", "profile": "h100.json"}}
    assert flags(planned(simulated, profile_folder="/here").workers[0], "--profile") == ["/here/h100.json"]
    simulated["spec.engine"]["profile"] = "/there/h100.json"
    assert flags(planned(simulated, profile_folder="/here").workers[0], "--profile") == ["/there/h100.json"]


def test_tls_by_role():
    paths = {role: TLSPaths(f"{role}.crt", f"{role}.key", "ca.crt") for role in ("prefill", "decode", "router")}
    found = planned(tls=paths)
    assert [flags(pod, "--tls-cert")[0] for pod in found.pods] == [f"{pod.role}.crt" for pod in found.pods]


def test_the_users_environment_wins():
    pod = planned({"spec.prefill.env": [{"name": "OMP_NUM_THREADS", "value": "9"}, {"name": "A"}]}).workers[0]
    assert dict(pod.environment) == {"OMP_NUM_THREADS": "9", "A": ""}


def test_gpus_are_given_once():
    found = planned({"spec.prefill.gpu.count": 1, "spec.decode.gpu.count": 1})
    assert [dict(pod.environment)["CUDA_VISIBLE_DEVICES"] for pod in found.workers] == ["0", "1", "2", "3"]


def test_a_cluster_has_one_plan_per_role():
    found = plan(parse(edited({"spec.decode.replicas": 3})), ClusterSite())
    assert [(pod.role, pod.replicas) for pod in found.pods] == [("prefill", 2), ("decode", 3), ("router", 1)]
    assert found.protocol == "TCP"
    assert flags(found.workers[0], "--name") == ["$(POD_NAME)"]
    assert flags(found.workers[0], "--tls-ca") == ["/etc/pdcluster/tls/ca.crt"]
    assert "--worker" not in found.router.command


@pytest.mark.parametrize("path", sample_files(), ids=lambda path: path.stem)
def test_samples_have_a_plan_here_and_there(path):
    cluster = parse_text(path.read_text())
    here, there = plan(cluster, local_site(cluster)), plan(cluster, ClusterSite())
    assert here.revision == there.revision
    assert {pod.role for pod in here.pods} == {pod.role for pod in there.pods}
