"""Which workers are asked for their peers, and when an answer counts."""

import asyncio
from dataclasses import replace

from pdcluster_operator import peers
from pdcluster_operator.cache import Cache, ClusterView
from pdcluster_operator.observe import Pod
from pdcluster_operator.peers import LINKING_SECONDS, Link, PeerWatch, asked, peers_in

KEY = ("default", "demo")


def pod(name: str, role: str, **other: object) -> Pod:
    base = Pod(
        name=name,
        uid=f"uid-{name}",
        role=role,
        ordinal=0,
        revision="one",
        ready=True,
        leaving=False,
        address="127.1.0.1",
        counted=True,
        drain_uid="",
        drain_deadline=0.0,
        created=0.0,
        trouble="",
    )
    return replace(base, **other)  # type: ignore[arg-type]


def names(*pods: Pod) -> list[str]:
    return [found.name for found in asked({entry.name: entry for entry in pods})]


def test_only_workers_that_ought_to_have_a_peer_are_asked() -> None:
    prefill, decode = pod("p", "prefill"), pod("d", "decode")
    assert names(prefill, decode) == ["p", "d"]
    assert names(prefill) == [], "there is nobody to reach"
    assert names(prefill, pod("d", "decode", ready=False)) == []
    assert names(prefill, pod("d", "decode", leaving=True)) == []
    assert names(prefill, pod("d", "decode", drain_uid="uid-d")) == []
    assert names(prefill, pod("d", "decode", revision="two")) == [], "other revisions do not pair"
    assert names(prefill, decode, pod("r", "router"), pod("m", "mixed")) == ["p", "d"]


def test_a_worker_without_peers_gets_a_moment_to_meet_them() -> None:
    assert Link(2, since=0).verdict(0) is True
    assert Link(0, since=0).verdict(LINKING_SECONDS - 1) is None
    assert Link(0, since=0).verdict(LINKING_SECONDS) is False


def test_a_verdict_is_told_once_and_forgotten_with_the_pods() -> None:
    cache, told, answers = Cache(), list[tuple[str, str]](), {"127.1.0.1": 1, "127.1.0.2": 1}

    async def read(address: str) -> int | None:
        return answers[address]

    async def run() -> None:
        view = ClusterView(pods={"p": pod("p", "prefill"), "d": pod("d", "decode", address="127.1.0.2")})
        cache._clusters[KEY] = view
        watch = PeerWatch(cache, told.append, read, every=100.0, chance=lambda: 1.0)
        assert watch.linked(KEY) == {}
        assert await watch._look(KEY) == 100.0
        assert await watch._look(KEY) == 100.0
        assert watch.linked(KEY) == {"uid-p": True, "uid-d": True}
        assert told == [KEY], "what has not changed is not told again"

        answers["127.1.0.2"] = 0
        assert await watch._look(KEY) == peers.DOUBTFUL_SECONDS
        assert watch.linked(KEY) == {"uid-p": True}, "too early to say"
        watch._links[KEY]["uid-d"] = Link(0, since=-1000.0)
        await watch._look(KEY)
        assert watch.linked(KEY) == {"uid-p": True, "uid-d": False}

        view.pods.clear()
        watch.notice(KEY)
        assert watch.linked(KEY) == {}
        assert await watch._look(KEY) is None

    asyncio.run(run())


def test_metrics_that_say_nothing_count_as_no_answer() -> None:
    assert peers_in(b"# HELP pdc_kv_peers Peers\n# TYPE pdc_kv_peers gauge\npdc_kv_peers 3.0\npdc_draining 0.0\n") == 3
    assert peers_in(b"pdc_kv_peers_other 3\n") is None
    assert peers_in(b"pdc_kv_peers NaN\n") is None
    assert peers_in(b"pdc_kv_peers 1e999\n") is None
    assert peers_in(b"") is None
