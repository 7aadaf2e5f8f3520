"""Targets by bounds, ratio and budget: tables, and properties over all inputs."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdcluster_operator.scaling.policy import Bounds, Limit, Request, Target, targets

NO_BOUNDS = Bounds()


def request(desired: int, least: int = 1, most: int = 10, gpus: int = 1, existing: int | None = None) -> Request:
    return Request(desired, least, most, gpus, desired if existing is None else existing)


def pair(prefill: int, decode: int, bounds: Bounds, **least: int) -> tuple[Target, Target]:
    wanted = {
        "prefill": request(prefill, least.get("prefill", 1)),
        "decode": request(decode, least.get("decode", 1)),
    }
    found = targets(wanted, bounds, None)
    return found["prefill"], found["decode"]


@pytest.mark.parametrize(
    ("desired", "effective", "limit"), [(5, 5, Limit.NONE), (0, 1, Limit.MIN), (11, 10, Limit.MAX)]
)
def test_bounds_of_one_role(desired: int, effective: int, limit: Limit) -> None:
    assert targets({"mixed": request(desired)}, NO_BOUNDS, None) == {"mixed": Target(desired, effective, limit)}


@pytest.mark.parametrize(
    ("prefill", "decode", "low", "high", "expected"),
    [
        (2, 2, "0.5", "2", (2, 2)),
        (6, 2, "0.5", "2", (6, 3)),
        (1, 6, "0.5", "2", (3, 6)),
        (10, 1, None, "0.5", (5, 10)),
        (1, 10, "2", None, (10, 5)),
        (3, 3, "1", "1", (3, 3)),
        (5, 3, "1", "1", (5, 5)),
    ],
)
def test_the_lower_side_is_raised_and_only_then_the_higher_one_lowered(
    prefill: int, decode: int, low: str | None, high: str | None, expected: tuple[int, int]
) -> None:
    bounds = Bounds(Decimal(low) if low else None, Decimal(high) if high else None)
    found = pair(prefill, decode, bounds)
    assert (found[0].effective, found[1].effective) == expected
    for asked, target in zip((prefill, decode), found, strict=True):
        assert (target.limited_by is Limit.RATIO) == (target.effective != asked)


def test_a_role_is_not_lowered_below_its_least_for_the_ratio() -> None:
    wanted = {"prefill": request(6, least=6, most=6), "decode": request(1, most=2)}
    found = targets(wanted, Bounds(high=Decimal(1)), None)
    assert (found["prefill"].effective, found["decode"].effective) == (6, 2)


def test_a_budget_is_handed_out_evenly_and_counts_pods_that_still_exist() -> None:
    wanted = {"prefill": request(4, existing=1), "decode": request(4, existing=1)}
    found = targets(wanted, NO_BOUNDS, 6)
    assert {role: (target.effective, target.limited_by) for role, target in found.items()} == {
        "prefill": (3, Limit.GPU_BUDGET),
        "decode": (3, Limit.GPU_BUDGET),
    }
    leaving = {"prefill": request(1, existing=3), "decode": request(4, existing=3)}
    assert targets(leaving, NO_BOUNDS, 6)["decode"] == Target(4, 3, Limit.GPU_BUDGET)


def test_a_budget_that_was_lowered_takes_pods_away_but_none_of_the_least() -> None:
    wanted = {"prefill": request(2, existing=2), "decode": request(6, existing=6)}
    found = targets(wanted, NO_BOUNDS, 5)
    assert {role: (target.effective, target.limited_by) for role, target in found.items()} == {
        "prefill": (2, Limit.NONE),
        "decode": (3, Limit.GPU_BUDGET),
    }
    assert {role: target.effective for role, target in targets(wanted, NO_BOUNDS, 0).items()} == {
        "prefill": 1,
        "decode": 1,
    }


def test_pods_without_gpus_need_no_budget() -> None:
    assert targets({"mixed": request(4, gpus=0, existing=0)}, NO_BOUNDS, 0)["mixed"].effective == 4


requests = st.builds(
    lambda desired, least, more, gpus, existing: Request(desired, least, least + more, gpus, existing),
    st.integers(0, 30),
    st.integers(1, 5),
    st.integers(0, 20),
    st.integers(0, 4),
    st.integers(0, 30),
)
roles = st.fixed_dictionaries({"prefill": requests, "decode": requests}, optional={"mixed": requests})
ratio = st.none() | st.decimals("0.1", "9", places=1)


@given(wanted=roles, low=ratio, high=ratio)
def test_without_a_budget_nobody_is_outside_its_bounds_nor_the_ratio_without_a_reason(
    wanted: dict[str, Request], low: Decimal | None, high: Decimal | None
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    bounds = Bounds(low, high)
    found = targets(wanted, bounds, None)
    for role, target in found.items():
        assert wanted[role].least <= target.effective <= wanted[role].most
        assert (target.limited_by is Limit.NONE) <= (target.effective == target.desired)
    prefill, decode = found["prefill"].effective, found["decode"].effective
    if not bounds.hold(prefill, decode):
        at_edge = (
            prefill in (wanted["prefill"].least, wanted["prefill"].most)
            or decode in (wanted["decode"].least, wanted["decode"].most)
            or _no_whole_numbers_fit(wanted, bounds)
        )
        assert at_edge


def _no_whole_numbers_fit(wanted: dict[str, Request], bounds: Bounds) -> bool:
    """A narrow ratio may fall between whole numbers: 1.1 to 1.1 of at most nine decode pods."""
    prefill, decode = wanted["prefill"], wanted["decode"]
    return not any(
        bounds.hold(p, d)
        for p in range(prefill.least, min(prefill.desired, prefill.most) + 1)
        for d in range(decode.least, decode.most + 1)
    ) or (bounds.low is not None and bounds.high is not None and bounds.high - bounds.low < 1)


@given(wanted=roles, budget=st.integers(0, 60))
def test_a_budget_is_never_exceeded_by_growth(wanted: dict[str, Request], budget: int) -> None:
    found = targets(wanted, NO_BOUNDS, budget)
    held = sum(entry.existing * entry.gpus for entry in wanted.values())
    after = sum(max(found[role].effective, entry.existing) * entry.gpus for role, entry in wanted.items())
    assert after <= max(budget, held)
    assert all(target.effective <= max(target.desired, wanted[role].least) for role, target in found.items())


@given(wanted=roles, low=ratio)
def test_asking_for_what_was_given_gives_it_again(wanted: dict[str, Request], low: Decimal | None) -> None:
    bounds = Bounds(low)
    first = targets(wanted, bounds, None)
    again = {
        role: Request(first[role].effective, entry.least, entry.most, entry.gpus, entry.existing)
        for role, entry in wanted.items()
    }
    second = targets(again, bounds, None)
    assert {role: target.effective for role, target in second.items()} == {
        role: target.effective for role, target in first.items()
    }
