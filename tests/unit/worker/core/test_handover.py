"""Prefill and decode cores together, over good links: the life of a request from submission to the last token."""

from core_cluster import Cluster
from core_executor import sampled_token
from core_requests import make_request


def test_one_request_goes_over() -> None:
    cluster = Cluster()
    client = cluster.submit(make_request(1, 10))
    cluster.run(1.0)
    assert client.outcome == "finished"
    assert client.tokens == client.expected
    assert client.prefill is None
    assert client.decode is not None
    cluster.check_drained()


def test_many_requests_over_two_and_two() -> None:
    cluster = Cluster(prefills=2, decodes=2)
    for number in range(1, 60):
        cluster.submit(make_request(number, 1 + number % 30, max_tokens=1 + number % 13))
    cluster.run(10.0)
    cluster.check_drained()
    assert {client.outcome for client in cluster.clients} == {"finished"}
    assert {client.epoch for client in cluster.clients} == {1}


def test_a_first_token_that_ends_the_request_ends_it_at_the_prefill_worker() -> None:
    cluster = Cluster()
    one = cluster.submit(make_request(1, 10, max_tokens=1))
    two = cluster.submit(make_request(2, 10, max_tokens=9, stop_token_ids=(sampled_token(2, 0),)))
    cluster.run(1.0)
    assert [one.outcome, two.outcome] == ["finished", "finished"]
    assert len(one.tokens) == len(two.tokens) == 1
    cluster.check_drained()


def test_matched_blocks_are_not_sent_again() -> None:
    cluster = Cluster()
    prompt = list(range(50, 62))
    for number in (1, 2):
        cluster.submit(make_request(number, prompt))
        cluster.run(1.0)
    assert [client.outcome for client in cluster.clients] == ["finished", "finished"]
    cluster.check_drained()
