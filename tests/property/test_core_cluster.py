"""Prefill and decode cores joined by links that lose, reorder and duplicate, among workers that die.

The simulation checks every write against the leases and every token against the undisturbed stream; at the end,
with the inputs stopped and the links whole, every request has ended exactly once and everything is empty.
"""

from core_cluster import Cluster, Network
from core_requests import make_request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pdcluster_worker.core.wire import Role

NETWORKS = [
    Network(),
    Network(jitter=0.02, transfer_failure=0.1),
    Network(jitter=0.05, loss=0.05, duplication=0.1, transfer_failure=0.05, write_delay=0.05),
]


class ClusterMachine(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 1 << 30),
        prefills=st.integers(1, 2),
        decodes=st.integers(1, 3),
        network=st.sampled_from(NETWORKS),
        blocks=st.sampled_from([(64, 64), (20, 24), (16, 17)]),
        slots=st.sampled_from([2, 8]),
    )
    def make(
        self, seed: int, prefills: int, decodes: int, network: Network, blocks: tuple[int, int], slots: int
    ) -> None:
        self.network = network
        self.cluster = Cluster(
            seed,
            prefills,
            decodes,
            network,
            prefill_blocks=blocks[0],
            decode_blocks=blocks[1],
            max_running_requests=slots,
        )

    @rule(
        sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
        max_tokens=st.integers(1, 20),
        patience=st.sampled_from([20.0, 400.0]),
        alone=st.booleans(),
        shared=st.booleans(),
    )
    def submit(self, sizes: list[int], max_tokens: int, patience: float, alone: bool, shared: bool) -> None:
        """With `shared`, each prompt begins as all others of its kind do."""
        for size in sizes:
            number = len(self.cluster.clients) + 1
            deadline = self.cluster.now + patience
            prompt = list(range(size)) if shared else size
            self.cluster.submit(
                make_request(number, prompt, max_tokens=max_tokens, deadline=deadline, alone=alone and number % 8 == 0)
            )

    @rule(which=st.integers(0, 100))
    def abort(self, which: int) -> None:
        if self.cluster.clients:
            self.cluster.abort(self.cluster.clients[which % len(self.cluster.clients)])

    @rule(which=st.integers(0, 5))
    def cut_or_mend(self, which: int) -> None:
        pairs = self.cluster.pairs()
        if pairs:
            prefill, decode = pairs[which % len(pairs)]
            if self.cluster.is_cut(prefill, decode):
                self.cluster.link(prefill, decode)
            else:
                self.cluster.unlink(prefill, decode)

    @rule(role=st.sampled_from([Role.PREFILL, Role.DECODE]), which=st.integers(0, 5), gap=st.floats(0, 3))
    def kill(self, role: Role, which: int, gap: float) -> None:
        live = self.cluster.live(role)
        if live:
            self.cluster.kill(live[which % len(live)])
            self.cluster.later(gap, lambda: self.cluster.add_node(role))

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.cluster.run(seconds)

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.check()

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.run(4.0)
        for prefill, decode in cluster.pairs():
            if cluster.is_cut(prefill, decode):
                cluster.link(prefill, decode)
        # What is on its way still lands as late as it would have, so fences must wait as long as before.
        cluster.network = Network(write_delay=self.network.write_delay)
        cluster.run_until_done()
        cluster.run(70.0)
        cluster.check_drained()
        outcomes = {client.outcome for client in cluster.clients}
        # A request for which links were cut too long is refused as a whole, before its first token.
        assert outcomes <= {"finished", "aborted", "deadline", "no_decode"}, outcomes


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
