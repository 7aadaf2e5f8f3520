"""Rest is the same work for a thousand clusters as for `FULL_PACE` of them."""

from pdcluster_operator.pace import FULL_PACE, LONGEST_STRETCH, rest, stretched


def test_few_clusters_are_looked_at_once_in_a_period() -> None:
    assert rest(600.0, 1, lambda: 1.0) == 600.0
    assert rest(600.0, FULL_PACE, lambda: 1.0) == 600.0
    assert rest(600.0, FULL_PACE, lambda: 0.0) == 300.0


def test_more_of_them_share_the_looks_that_those_have() -> None:
    looks = {number: number / rest(600.0, number, lambda: 1.0) for number in (FULL_PACE, 1000, 5000)}
    assert len({round(rate, 9) for rate in looks.values()}) == 1


def test_what_waits_in_a_crowd_waits_longer_but_not_for_ever() -> None:
    assert [stretched(2.0, number, 10) for number in (0, 10, 15, 1000)] == [2.0, 2.0, 3.0, 2.0 * LONGEST_STRETCH]
