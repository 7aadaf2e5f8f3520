"""The single rules of a rollout, each on a pretended cluster brought to the point where it matters."""

from cel_table import edited
from pretend_cluster import PretendCluster
from pretend_workloads import is_leaving

from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.reconcile.situation import RolloutPhase, StartDrain
from pdcluster_operator.scaling.policy import Limit

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 8}


def pretend(prefill: int, decode: int, **edit: object) -> PretendCluster:
    """A settled cluster of so many pods, each role scaled by somebody else."""
    roles = {f"{role}.{key}": value for role in ("prefill", "decode") for key, value in SCALED.items()}
    cluster = PretendCluster(edited({"tls": {"mode": "Disabled"}, **roles, **edit})["spec"])
    cluster.settle()
    cluster.scale("prefill", prefill)
    cluster.scale("decode", decode)
    cluster.settle()
    return cluster


SCALED = {"replicas": None, "scaling": EXTERNAL}


def until(cluster: PretendCluster, holds: object, limit: int = 60) -> None:
    """Turns and ticks until `holds()`."""
    for _ in range(limit):
        if holds():  # type: ignore[operator]
            return
        cluster.turn()
        cluster.tick()
        cluster.now += 1
    raise AssertionError("it does not come to that")


def partition(cluster: PretendCluster, role: str) -> int:
    return int(cluster.stateful_set(role)["spec"]["updateStrategy"]["rollingUpdate"]["partition"])


def first_came_up(cluster: PretendCluster, role: str) -> bool:
    """The first pod of a role, its highest, has been replaced and is ready."""
    found = cluster.revisions(role)
    return found[-1] != found[0] and cluster.ready(role) == len(found) == cluster.stateful_set(role)["spec"]["replicas"]


def test_a_role_grows_on_the_revision_that_serves_until_the_target_has_come_up() -> None:
    cluster = pretend(2, 3)
    old = cluster.revisions("decode")[0]
    cluster.workloads.stuck = {"demo-decode-2"}
    cluster.edit(engine={"prepareThreads": 6})
    until(cluster, lambda: cluster.revisions("decode").count(old) == 2 and len(cluster.revisions("decode")) == 3)

    cluster.scale("decode", 5)
    until(cluster, lambda: cluster.ready("decode") == 4)

    assert [revision == old for revision in cluster.revisions("decode")] == [True, True, False, True, True]
    cluster.workloads.stuck = set()
    cluster.settle()
    assert old not in cluster.revisions("decode")
    assert cluster.undrained == []


def test_a_role_grows_on_the_target_once_that_has_come_up() -> None:
    cluster = pretend(3, 3)
    old = cluster.revisions("decode")[0]
    cluster.edit(engine={"prepareThreads": 6})
    until(cluster, lambda: first_came_up(cluster, "decode"))

    cluster.scale("decode", 4)
    until(cluster, lambda: len(cluster.revisions("decode")) == 4)

    assert cluster.revisions("decode")[3] != old


def test_a_role_that_rolls_keeps_a_pod_above_its_partition() -> None:
    cluster = pretend(2, 4)
    cluster.edit(engine={"prepareThreads": 6})
    until(cluster, lambda: first_came_up(cluster, "decode"))

    cluster.scale("decode", 1)
    decision = cluster.turn()

    assert decision.roles["decode"].limited_by is Limit.ROLLOUT_FLOOR
    assert cluster.stateful_set("decode")["spec"]["replicas"] == 4
    cluster.settle()
    assert len(cluster.revisions("decode")) == 1
    assert cluster.undrained == cluster.workloads.gaps == []


def test_the_last_pair_of_a_revision_stays_while_its_neighbour_is_not_ready() -> None:
    cluster = pretend(2, 2)
    cluster.workloads.set_ready("demo-prefill-0", "False")
    cluster.workloads.set_ready("demo-decode-0", "False")
    cluster.workloads.stuck = {"demo-prefill-0", "demo-decode-0"}
    cluster.edit(engine={"prepareThreads": 6})

    for _ in range(10):
        decision = cluster.turn()
        cluster.tick()
        assert not [action for action in decision.actions if isinstance(action, StartDrain)]
        assert cluster.workloads.serves()
    cluster.now += 1800
    assert cluster.turn().rollout.phase is RolloutPhase.STALLED

    cluster.workloads.stuck = set()
    cluster.settle()
    assert cluster.workloads.gaps == []


def test_a_drain_is_taken_back_when_another_pod_fails_before_it_ends() -> None:
    cluster = pretend(3, 3)
    cluster.edit(engine={"prepareThreads": 6})
    until(cluster, lambda: first_came_up(cluster, "decode"))
    cluster.drain_seconds = None
    cluster.turn()
    draining = {name for name, pod in cluster.pods.items() if pod["metadata"].get("annotations")}
    assert len(draining) == 1

    cluster.workloads.set_ready("demo-decode-2", "False")
    cluster.turn()

    assert not {name for name, pod in cluster.pods.items() if pod["metadata"].get("annotations")}


def test_a_pod_that_does_not_serve_is_replaced_before_one_that_does() -> None:
    cluster = pretend(2, 2)
    first = cluster.revisions("decode")[0]
    cluster.workloads.stuck = {"demo-prefill-1"}
    cluster.edit(engine={"prepareThreads": 6})
    until(cluster, lambda: cluster.revisions("prefill").count(first) == 1 and len(cluster.revisions("prefill")) == 2)

    cluster.edit(engine={"prepareThreads": 7})
    cluster.turn()
    drains = [action.pod.name for action in cluster.turn().actions if isinstance(action, StartDrain)]

    assert drains in ([], ["demo-prefill-1"])
    assert not is_leaving(cluster.pods["demo-decode-1"])
    cluster.workloads.stuck = set()
    cluster.settle()
    assert cluster.workloads.gaps == []


def test_an_operator_that_restarts_in_the_middle_of_a_drain_goes_on() -> None:
    cluster = pretend(2, 2)
    cluster.drain_seconds = 3
    cluster.edit(engine={"prepareThreads": 6})
    for _ in range(80):
        cluster.turn()
        cluster.restart()
        cluster.tick()
        cluster.now += 1

    assert len(set(cluster.revisions("prefill") + cluster.revisions("decode"))) == 1
    assert partition(cluster, "prefill") == partition(cluster, "decode") == HELD
    assert cluster.undrained == []


def test_the_budget_counts_a_pod_that_is_about_to_come_back() -> None:
    budget = {"prefill.gpu.count": 1, "decode.gpu.count": 1, "scalingPolicy": {"maxGPUs": 6, "ratio": {}}}
    cluster = pretend(4, 2, **budget)
    cluster.scale("decode", 4)
    del cluster.pods["demo-prefill-3"]

    decision = cluster.turn()

    assert decision.roles["decode"].limited_by is Limit.GPU_BUDGET
    assert decision.roles["prefill"].target.effective == 4
    cluster.settle()
    assert (len(cluster.revisions("prefill")), len(cluster.revisions("decode"))) == (4, 2)
