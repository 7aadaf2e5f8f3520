"""decide() under any history: edits, scaling, crashes between actions and lost pods, in any order: it converges."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pretend_cluster import PretendCluster

from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.reconcile.situation import RolloutPhase

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
ROLES = ("prefill", "decode")


class Histories(RuleBasedStateMachine):
    """`cluster` is None until the first step."""

    cluster: PretendCluster

    @initialize(mixed=st.booleans(), drain=st.sampled_from([0, 2, None]))
    def begin(self, mixed: bool, drain: float | None) -> None:
        role = {"gpu": {"count": 0}, "scaling": EXTERNAL}
        spec = {
            "model": {"name": "tiny", "source": {"hostPath": {"path": "/m"}}},
            "prefill": role,
            "decode": role,
            "transport": {"kv": {"protocol": "TCP"}},
            "drain": {"timeoutSeconds": 5},
        }
        self.cluster = PretendCluster({**spec, "mixed": role} if mixed else spec, drain_seconds=drain)

    @rule()
    def turn(self) -> None:
        self.cluster.turn()

    @rule(actions=st.integers(0, 6))
    def turn_that_is_cut_short(self, actions: int) -> None:
        self.cluster.turn(crash_after=actions)

    @rule()
    def time_passes(self) -> None:
        self.cluster.tick()
        self.cluster.now += 1

    @rule(threads=st.integers(1, 3))
    def another_revision(self, threads: int) -> None:
        self.cluster.edit(engine={"prepareThreads": threads})

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        self.cluster.edit(rollout={"paused": paused})

    @rule(role=st.sampled_from(ROLES), number=st.integers(0, 6))
    @precondition(lambda self: any(key.kind == "PDRoleScaler" for key in self.cluster.objects))
    def scale(self, role: str, number: int) -> None:
        if any(key.name == f"demo-{role}" and key.kind == "PDRoleScaler" for key in self.cluster.objects):
            self.cluster.scale(role, number)

    @rule(data=st.data())
    @precondition(lambda self: self.cluster.pods)
    def lose_a_pod(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.pods)))
        uid = self.cluster.pods.pop(name)["metadata"]["uid"]
        self.cluster.since.pop(uid, None)

    @invariant()
    def no_role_is_without_pods_on_purpose(self) -> None:
        for key, entry in self.cluster.objects.items():
            if key.kind == "StatefulSet":
                assert entry["spec"]["replicas"] >= 1

    @invariant()
    def nobody_is_removed_who_was_not_drained(self) -> None:
        assert self.cluster.undrained == []

    def teardown(self) -> None:
        self.cluster.edit(rollout={"paused": False})
        decision = self.cluster.settle(turns=400)
        assert decision.rollout.phase is RolloutPhase.COMPLETE
        for role, entry in decision.roles.items():
            assert entry.ready == entry.target.effective == len(self.cluster.revisions(role))
            assert set(self.cluster.revisions(role)) == {decision.rollout.target}
            rolling = self.cluster.stateful_set(role)["spec"]["updateStrategy"]["rollingUpdate"]
            assert rolling["partition"] == HELD
        assert self.cluster.turn().actions == ()


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestHistories = Histories.TestCase
