"""decide() under any history: edits, scaling, crashes, old news, lost pods, restarts, in any order.

It keeps every rule of a rollout at every step, and it converges.
"""

from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pretend_cluster import PretendCluster, shuffled
from pretend_workloads import HASH, is_leaving, is_ready

from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.observe import pod_of
from pdcluster_operator.reconcile.decide import decide
from pdcluster_operator.reconcile.hold import is_empty
from pdcluster_operator.reconcile.situation import Decision, RolloutPhase
from pdcluster_operator.scaling.policy import Bounds

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
ROLES = ("prefill", "decode")
BUDGET = 7


def spec_of(*, mixed: bool, budget: bool, ratio: bool) -> dict[str, Any]:
    role = {"gpu": {"count": 1 if budget else 0}, "scaling": EXTERNAL}
    spec: dict[str, Any] = {
        "model": {"name": "tiny", "source": {"hostPath": {"path": "/m"}}},
        "prefill": role,
        "decode": role,
        "transport": {"kv": {"protocol": "TCP"}},
        "tls": {"mode": "Disabled"},
        "drain": {"timeoutSeconds": 5},
        "scalingPolicy": {"ratio": {"min": "0.5", "max": "2"} if ratio else {}},
    }
    if budget:
        spec["scalingPolicy"]["maxGPUs"] = BUDGET
    return {**spec, "mixed": role} if mixed else spec


def check_apply(cluster: PretendCluster, old: dict[str, Any], new: dict[str, Any]) -> None:
    """What may be changed of a StatefulSet, in one write."""
    before, after = numbers(old), numbers(new)
    template = changed(old, new)
    pods = {ordinal: pod for ordinal, pod in cluster.workloads.of(old).items() if not is_leaving(pod)}
    assert after[1] == HELD or not template, "a template comes with a partition that holds every pod"
    if template:
        return
    if after[0] < before[0]:
        assert after[1] == HELD or after[0] > after[1], "a role that rolls does not shrink to its partition"
    status = {"currentRevision": "", "updateRevision": "", **old["status"]}
    rolling = status["currentRevision"] != status["updateRevision"]
    fresh = [pod for pod in pods.values() if pod["metadata"]["labels"][HASH] == status["updateRevision"]]
    came_up = any(map(is_ready, fresh))
    if after[1] > before[1] and rolling:
        assert after[0] > before[0], "a partition is raised when nothing is half done, or for growth"
        assert not came_up, "for growth only as long as the target has shown nothing"
    serving = any(pod["metadata"]["labels"][HASH] == status["currentRevision"] for pod in pods.values())
    if after[0] > before[0] and rolling and serving and not came_up:
        assert after[1] >= after[0], "new pods are of the revision that serves"


def numbers(entry: dict[str, Any]) -> tuple[int, int]:
    spec = entry["spec"]
    return spec["replicas"], spec["updateStrategy"]["rollingUpdate"]["partition"]


def changed(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return bool(old["spec"]["template"] != new["spec"]["template"])


class Histories(RuleBasedStateMachine):
    """`cluster` is None until the first step."""

    cluster: PretendCluster
    budget: bool
    ratio: bool
    people: bool
    """Somebody drains pods by hand."""
    lost = False
    """Somebody took a pod away: then rules about who serves do not hold."""

    @initialize(mixed=st.booleans(), drain=st.sampled_from([0, 2, None]), budget=st.booleans(), ratio=st.booleans())
    def begin(self, mixed: bool, drain: float | None, budget: bool, ratio: bool) -> None:
        self.budget, self.ratio, self.people = budget, ratio, False
        self.cluster = PretendCluster(spec_of(mixed=mixed, budget=budget, ratio=ratio), drain_seconds=drain)
        self.cluster.on_apply = lambda old, new: check_apply(self.cluster, old, new)

    @rule()
    def somebody_comes(self) -> None:
        self.people = True

    @rule(seed=st.integers(0, 99))
    def turn(self, seed: int) -> None:
        situation = self.cluster.situation()
        decision = decide(situation)
        assert decide(situation) == decision, "asked twice, it says the same"
        assert key(decide(shuffled(situation, seed))) == key(decision), "the order of what exists says nothing"
        self.cluster.carry_out(decision)
        self.check_ratio(decision)

    def check_ratio(self, decision: Decision) -> None:
        bounds = Bounds(Decimal("0.5"), Decimal(2)) if self.ratio else Bounds()
        found = {role: decision.roles[role].target for role in ROLES}
        if not any(target.limited_by for target in found.values()):
            assert bounds.hold(found["prefill"].effective, found["decode"].effective)

    @rule(actions=st.integers(0, 6))
    def turn_that_is_cut_short(self, actions: int) -> None:
        self.cluster.turn(crash_after=actions)
        self.cluster.restart()

    @rule(ticks=st.integers(1, 2))
    def turn_on_old_news(self, ticks: int) -> None:
        decision = decide(self.cluster.situation())
        for _ in range(ticks):
            self.cluster.tick()
        self.cluster.carry_out(decision)

    @rule()
    def operator_restarts(self) -> None:
        self.cluster.restart()

    @rule()
    def time_passes(self) -> None:
        self.cluster.tick()
        self.cluster.now += 1

    @rule(role=st.sampled_from(ROLES))
    @precondition(lambda self: self.cluster.objects)
    def one_controller_looks(self, role: str) -> None:
        for name, entry in self.cluster.objects.items():
            if name.kind == "StatefulSet" and name.name.endswith(role):
                self.cluster.workloads.sync(entry)

    @rule(data=st.data())
    @precondition(lambda self: self.cluster.pods)
    def one_kubelet_looks(self, data: st.DataObject) -> None:
        self.cluster.workloads.kubelet(data.draw(st.sampled_from(sorted(self.cluster.pods))))

    @rule(threads=st.integers(1, 3))
    def another_revision(self, threads: int) -> None:
        self.cluster.edit(engine={"prepareThreads": threads})

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        self.cluster.edit(rollout={"paused": paused})

    @rule(role=st.sampled_from(ROLES), number=st.integers(0, 6))
    @precondition(lambda self: any(entry.kind == "PDRoleScaler" for entry in self.cluster.objects))
    def scale(self, role: str, number: int) -> None:
        if any(entry.name == f"demo-{role}" and entry.kind == "PDRoleScaler" for entry in self.cluster.objects):
            self.cluster.scale(role, number)

    @rule(data=st.data())
    @precondition(lambda self: self.cluster.pods)
    def lose_a_pod(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.pods)))
        self.cluster.pods.pop(name)
        self.lost = True

    @rule(data=st.data())
    @precondition(lambda self: self.cluster.pods)
    def a_pod_gets_unready(self, data: st.DataObject) -> None:
        self.cluster.workloads.set_ready(data.draw(st.sampled_from(sorted(self.cluster.pods))), "False")
        self.lost = True

    @rule(data=st.data())
    @precondition(lambda self: self.people and self.cluster.pods)
    def somebody_drains_a_pod_or_takes_it_back(self, data: st.DataObject) -> None:
        metadata = self.cluster.pods[data.draw(st.sampled_from(sorted(self.cluster.pods)))]["metadata"]
        notes = metadata.setdefault("annotations", {})
        if notes.pop(labels.DRAIN, None) is None:
            notes[labels.DRAIN] = metadata["uid"]
        self.lost = True

    @rule(data=st.data())
    @precondition(lambda self: self.people and self.cluster.pods)
    def a_container_restarts(self, data: st.DataObject) -> None:
        status = self.cluster.pods[data.draw(st.sampled_from(sorted(self.cluster.pods)))]["status"]
        status["containerStatuses"] = [{"restartCount": 1}]

    @rule(threads=st.integers(1, 3))
    def a_revision_that_never_comes_up(self, threads: int) -> None:
        revision = self.revision_with(threads)
        self.cluster.workloads.stuck = {revision}

    @rule()
    def it_comes_up_after_all(self) -> None:
        self.cluster.workloads.stuck = set()

    def revision_with(self, threads: int) -> str:
        return threads_revision(self.cluster, threads)

    @invariant()
    def no_role_is_without_pods_on_purpose(self) -> None:
        for entry in self.stateful_sets():
            assert entry["spec"]["replicas"] >= 1

    @invariant()
    def nobody_is_removed_who_was_not_drained(self) -> None:
        assert self.cluster.undrained == []

    @invariant()
    def a_role_with_others_keeps_a_pair(self) -> None:
        assert self.lost or self.cluster.workloads.gaps == []

    @invariant()
    def no_pod_is_of_a_revision_that_nobody_runs_or_wants(self) -> None:
        assert self.lost or self.cluster.workloads.strangers == []

    @invariant()
    def the_budget_counts_everybody(self) -> None:
        workers = [pod for pod in self.cluster.pods.values() if pod["metadata"]["labels"][labels.ROLE] != "router"]
        assert not self.budget or len(workers) <= BUDGET

    def stateful_sets(self) -> list[dict[str, Any]]:
        return [entry for name, entry in self.cluster.objects.items() if name.kind == "StatefulSet"]

    def requests_are_kept(self) -> None:
        """Whoever is asked out of service is empty and stays so; then everybody is taken back."""
        self.cluster.settle(turns=600)
        for pod in map(pod_of, self.cluster.pods.values()):
            assert not pod.is_held or pod.role == "router" or is_empty(pod), pod
            self.cluster.pods[pod.name]["metadata"].get("annotations", {}).pop(labels.DRAIN, None)

    def teardown(self) -> None:
        self.cluster.workloads.stuck = set()
        self.cluster.edit(rollout={"paused": False})
        self.requests_are_kept()
        decision = self.cluster.settle(turns=600)
        assert decision.rollout.phase is RolloutPhase.COMPLETE
        for role, entry in decision.roles.items():
            assert entry.ready == entry.target.effective == len(self.cluster.revisions(role))
            assert set(self.cluster.revisions(role)) == {decision.rollout.target}
            assert numbers(self.cluster.stateful_set(role))[1] == HELD
        assert self.cluster.turn().actions == ()
        assert not any(pod.drain_uid or pod.emptied for pod in map(pod_of, self.cluster.pods.values()))


def threads_revision(cluster: PretendCluster, threads: int) -> str:
    """The revision that an edit to so many threads makes."""
    other = PretendCluster({**cluster.spec, "engine": {"prepareThreads": threads}})
    return decide(other.situation()).rollout.target


def key(decision: Decision) -> tuple[Any, ...]:
    """A decision, but for the order of what is independent."""
    return sorted(map(repr, decision.actions)), decision.roles, decision.rollout, decision.wake_after


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
