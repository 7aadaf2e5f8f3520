"""decide() on a pretended cluster: creation, rest, scaling, drains and rollouts, edits in the middle of each."""

import pytest
from cel_table import edited
from pretend_cluster import PretendCluster

from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.reconcile.situation import RolloutPhase, StartDrain, StopDrain
from pdcluster_operator.scaling.policy import Limit

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 8}


def pretend(**edit: object) -> PretendCluster:
    edit = {"tls": {"mode": "Disabled"}, **edit}
    spec = edited({key.replace("__", "."): value for key, value in edit.items()})["spec"]
    return PretendCluster(spec)


def scaled(**edit: object) -> PretendCluster:
    roles = {"prefill__replicas": None, "decode__replicas": None}
    return pretend(**roles, prefill__scaling=EXTERNAL, decode__scaling=EXTERNAL, **edit)


def test_everything_is_made_and_then_nothing_is_written() -> None:
    cluster = pretend()
    decision = cluster.settle()
    written = cluster.writes

    assert {role: entry.ready for role, entry in decision.roles.items()} == {"prefill": 2, "decode": 2}
    assert decision.rollout.phase is RolloutPhase.COMPLETE
    for _ in range(10):
        assert cluster.turn().actions == ()
    assert cluster.writes == written


def test_a_new_operator_version_restarts_no_pod() -> None:
    cluster = pretend()
    cluster.settle()
    pods = set(map(id, cluster.pods.values()))

    cluster.worker_image = "release:2"
    cluster.settle()

    assert set(map(id, cluster.pods.values())) == pods
    cluster.edit(engine={"prepareThreads": 6})
    cluster.settle()
    template = cluster.stateful_set("prefill")["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "release:2", "a new revision is rendered by the new version"


def test_a_rollout_replaces_every_pod_once_drained_and_leaves_the_partition_held() -> None:
    cluster = pretend()
    cluster.settle()
    old = cluster.revisions("prefill")[0]

    cluster.edit(engine={"prepareThreads": 6})
    decision = cluster.settle()

    assert decision.rollout.phase is RolloutPhase.COMPLETE
    assert old not in cluster.revisions("prefill") + cluster.revisions("decode")
    assert cluster.undrained == []
    for role in ("prefill", "decode"):
        assert cluster.stateful_set(role)["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == HELD


def test_one_pod_at_a_time_is_away_during_a_rollout() -> None:
    cluster = pretend(prefill__replicas=3, decode__replicas=3)
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 6})

    for _ in range(80):
        cluster.turn()
        cluster.tick()
        assert cluster.ready("prefill") + cluster.ready("decode") >= 5
    assert len(set(cluster.revisions("prefill") + cluster.revisions("decode"))) == 1


def test_a_serving_revision_keeps_a_pair_until_the_next_one_has_one() -> None:
    cluster = pretend(prefill__replicas=2, decode__replicas=4)
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 6})

    for _ in range(100):
        cluster.turn()
        cluster.tick()
        pairs = set(cluster.revisions("prefill")) & set(cluster.revisions("decode"))
        assert pairs, (cluster.revisions("prefill"), cluster.revisions("decode"))


def test_the_only_pair_is_replaced_together() -> None:
    cluster = pretend(prefill__replicas=1, decode__replicas=1)
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 6})

    decision = cluster.turn()

    assert decision.rollout.gap
    drains = [
        action.pod.role for action in (*decision.actions, *cluster.turn().actions) if isinstance(action, StartDrain)
    ]
    assert {"prefill", "decode"} <= set(drains)
    cluster.settle()
    assert len(set(cluster.revisions("prefill") + cluster.revisions("decode"))) == 1


@pytest.mark.parametrize("steps", range(1, 14))
@pytest.mark.parametrize("back", [False, True], ids=["B to C", "B to A"])
def test_an_edit_in_the_middle_of_a_rollout_converges(steps: int, back: bool) -> None:
    cluster = pretend()
    cluster.settle()
    first = cluster.revisions("prefill")[0]
    cluster.edit(engine={"prepareThreads": 6})
    for _ in range(steps):
        cluster.turn()
        cluster.tick()

    cluster.edit(engine=None if back else {"prepareThreads": 7})
    cluster.settle()

    revisions = set(cluster.revisions("prefill") + cluster.revisions("decode"))
    assert len(revisions) == 1
    assert (revisions == {first}) == back
    assert cluster.undrained == []


@pytest.mark.parametrize("steps", range(1, 14))
@pytest.mark.parametrize("number", [1, 4])
def test_scaling_in_the_middle_of_a_rollout_converges(steps: int, number: int) -> None:
    cluster = scaled()
    cluster.settle()
    for role in ("prefill", "decode"):
        cluster.scale(role, 2)
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 6})
    for _ in range(steps):
        cluster.turn()
        cluster.tick()

    cluster.scale("decode", number)
    cluster.settle()

    assert len(cluster.revisions("decode")) == number
    assert len(set(cluster.revisions("prefill") + cluster.revisions("decode"))) == 1
    assert cluster.undrained == []


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_pod_that_is_deleted_in_the_middle_of_a_rollout_comes_back_and_it_converges(steps: int) -> None:
    cluster = pretend()
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 6})
    for _ in range(steps):
        cluster.turn()
        cluster.tick()
    for name in ("demo-prefill-1", "demo-decode-1"):
        cluster.pods.pop(name, None)

    cluster.settle()

    assert len(set(cluster.revisions("prefill") + cluster.revisions("decode"))) == 1
    assert cluster.ready("prefill") == cluster.ready("decode") == 2


def test_a_paused_rollout_replaces_nothing_and_goes_on_later() -> None:
    cluster = pretend()
    cluster.settle()
    old = cluster.revisions("prefill")[0]

    cluster.edit(engine={"prepareThreads": 6}, rollout={"paused": True})
    decision = cluster.settle()
    assert decision.rollout.phase is RolloutPhase.PAUSED
    assert set(cluster.revisions("prefill") + cluster.revisions("decode")) == {old}

    cluster.edit(rollout={"paused": False})
    cluster.settle()
    assert old not in cluster.revisions("prefill") + cluster.revisions("decode")


def test_a_pod_that_does_not_come_up_stops_the_rollout() -> None:
    cluster = pretend()
    cluster.settle()
    old = cluster.revisions("prefill")[0]
    cluster.workloads.stuck = {"demo-prefill-1", "demo-decode-1"}

    cluster.edit(engine={"prepareThreads": 6})
    for _ in range(30):
        cluster.turn()
        cluster.tick()

    revisions = cluster.revisions("prefill") + cluster.revisions("decode")
    assert revisions.count(old) == 3, "one pod was taken down, and no other while it is away"


def test_a_scaler_starts_at_the_live_number_and_keeps_what_it_was_told() -> None:
    cluster = pretend(decode__replicas=3)
    cluster.settle()
    cluster.edit(decode__replicas=None, decode__scaling=EXTERNAL)
    decision = cluster.settle()

    assert decision.roles["decode"].target.desired == 3
    for _ in range(10):
        assert cluster.turn().actions == ()
    cluster.scale("decode", 5)
    assert cluster.settle().roles["decode"].ready == 5


def test_deleting_a_scaler_changes_no_number() -> None:
    cluster = scaled()
    cluster.settle()
    cluster.scale("decode", 4)
    cluster.settle()
    del cluster.objects[next(key for key in cluster.objects if key.kind == "PDRoleScaler" and "decode" in key.name)]

    assert cluster.settle().roles["decode"].ready == 4


def test_scale_in_drains_the_highest_ordinals_and_waits_for_them() -> None:
    cluster = scaled()
    cluster.settle()
    cluster.scale("decode", 4)
    cluster.settle()
    cluster.drain_seconds = None

    cluster.scale("decode", 2)
    decision = cluster.turn()
    cluster.tick()

    assert decision.roles["decode"].limited_by is Limit.DRAINING
    drained = [action.pod.name for action in decision.actions if isinstance(action, StartDrain)]
    assert drained == ["demo-decode-3", "demo-decode-2"]
    assert len(cluster.revisions("decode")) == 4
    cluster.now += 301
    cluster.settle()
    assert len(cluster.revisions("decode")) == 2, "its time is up, the drain timeout of the spec"


def test_rising_again_resumes_draining_pods_before_any_new_one() -> None:
    cluster = scaled()
    cluster.settle()
    cluster.scale("decode", 4)
    cluster.settle()
    cluster.drain_seconds = None
    cluster.scale("decode", 2)
    cluster.turn()
    pods = set(cluster.pods)

    cluster.scale("decode", 4)
    decision = cluster.turn()

    resumed = [action.pod.name for action in decision.actions if isinstance(action, StopDrain)]
    assert sorted(resumed) == ["demo-decode-2", "demo-decode-3"]
    cluster.settle()
    assert set(cluster.pods) == pods


def test_a_pause_changes_nothing_but_tells_so() -> None:
    cluster = pretend()
    cluster.settle()
    cluster.edit(paused=True, decode__replicas=4, engine={"prepareThreads": 6})

    decision = cluster.turn()

    assert decision.actions == ()
    assert decision.roles["decode"].limited_by is Limit.PAUSED


def test_ten_revisions_are_kept() -> None:
    cluster = pretend()
    for threads in range(1, 20):
        cluster.edit(engine={"prepareThreads": threads})
        cluster.settle()

    kept = [
        entry for key, entry in cluster.objects.items() if key.kind == "ControllerRevision" and "workers" in key.name
    ]
    assert len(kept) == 10
    assert sorted(entry["revision"] for entry in kept) == list(range(10, 20))
