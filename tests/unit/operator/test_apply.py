"""What one refused or failing child means for the others."""

import asyncio
from typing import Any, cast

import pytest

from pdcluster_operator.apply import Executor, steps
from pdcluster_operator.cache import Cache
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.reconcile.situation import Apply, Situation, Trouble


class FakeKube:
    """Takes what is applied, apart from the kinds that fail."""

    def __init__(self, **failures: int) -> None:
        self._failures = failures
        self.taken: list[str] = []

    async def apply(self, manifest: dict[str, Any], **_: Any) -> dict[str, Any]:
        if (status := self._failures.get(manifest["kind"])) is not None:
            raise KubeError(status, "", "the webhook does not answer")
        self.taken.append(manifest["kind"])
        return manifest


class FakeSituation:
    cluster = None


KINDS = ("ServiceAccount", "NetworkPolicy", "ControllerRevision", "StatefulSet", "PodDisruptionBudget")


def applied(*, is_new: bool) -> tuple[Apply, ...]:
    metadata = {"name": "a", "namespace": "n", "uid": "u"}
    return tuple(Apply({"kind": kind, "apiVersion": "v1", "metadata": metadata}, only_create=is_new) for kind in KINDS)


def carry_out(kube: FakeKube, *, is_new: bool = False) -> list[Trouble]:
    actions = applied(is_new=is_new)
    executor = Executor(cast(Kube, kube), Cache(), cast(Any, None), cast(Any, None))
    return asyncio.run(executor.carry_out(cast(Situation, FakeSituation()), actions))


def test_a_child_that_the_server_fails_at_holds_up_no_other_and_is_tried_again() -> None:
    kube = FakeKube(NetworkPolicy=500)
    with pytest.raises(KubeError, match="webhook"):
        carry_out(kube)
    assert kube.taken == [kind for kind in KINDS if kind != "NetworkPolicy"]


@pytest.mark.parametrize(
    ("kind", "status"), [("ControllerRevision", 503), ("NetworkPolicy", 429), ("PodDisruptionBudget", 0)]
)
def test_what_others_need_or_a_server_in_distress_ends_the_turn(kind: str, status: int) -> None:
    kube = FakeKube(**{kind: status})
    with pytest.raises(KubeError):
        carry_out(kube)
    assert kube.taken == list(KINDS[: KINDS.index(kind)])


def test_a_refusal_for_good_is_trouble_and_nothing_more() -> None:
    kube = FakeKube(StatefulSet=422)
    (trouble,) = carry_out(kube)
    assert "webhook" in trouble.message
    assert kube.taken == [kind for kind in KINDS if kind != "StatefulSet"]


def test_new_children_are_made_together_those_that_need_others_after_them() -> None:
    made = [
        [action.manifest["kind"] for action in step if isinstance(action, Apply)]
        for step in steps(applied(is_new=True))
    ]
    assert made == [list(KINDS[:3]), list(KINDS[3:])]


def test_changes_of_what_is_there_are_made_one_by_one() -> None:
    assert [len(step) for step in steps(applied(is_new=False))] == [1] * len(KINDS)


def test_of_what_is_made_together_a_failure_lets_the_others_end_and_what_needs_it_wait() -> None:
    kube = FakeKube(ServiceAccount=503)
    with pytest.raises(KubeError, match="ServiceAccount a"):
        carry_out(kube, is_new=True)
    assert kube.taken == ["NetworkPolicy", "ControllerRevision"]
