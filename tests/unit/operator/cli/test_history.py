"""Revisions and the way back: the pod-affecting part returns, everything else stays, and the hash is the old one."""

import copy
from typing import Any

import pytest
from cli_objects import EXTERNAL, cluster, pod
from hypothesis import given
from hypothesis import strategies as st

from pdcluster_operator.cli.history import UndoError, chosen, differences, history, merge_patch, way_back
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.revision import pod_spec, revision_of


def kept(number: int, manifest: dict[str, Any], uid: str = "cluster-uid") -> dict[str, Any]:
    """As the operator stores it."""
    typed = parse(manifest)
    labels = {"pdcluster.dev/role": "workers", "pdcluster.dev/revision": revision_of(typed)}
    metadata = {"labels": labels, "ownerReferences": [{"uid": uid}], "creationTimestamp": f"day {number}"}
    return {"metadata": metadata, "revision": number, "data": {"spec": pod_spec(typed.spec)}}


def merged(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """As the API server merges."""
    found = copy.deepcopy(document)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            found[name] = merged(found[name], value)
        else:
            found[name] = value
    return found


FIRST = cluster()
SECOND = cluster(engine={"prepareThreads": 7}, prefill__env=[{"name": "A", "value": "1"}])


def test_the_kept_revisions_in_order_with_what_they_changed():
    foreign = kept(9, cluster(engine={"blockSize": 32}), uid="other")
    pods = [pod("demo-decode-0", "decode")]
    pods[0]["metadata"]["labels"]["pdcluster.dev/revision"] = revision_of(parse(FIRST))
    found = history(SECOND, [kept(2, SECOND), foreign, kept(1, FIRST)], pods)
    assert [(entry.number, entry.pods, entry.is_target) for entry in found] == [(1, 1, False), (2, 0, True)]
    assert found[0].changes == ()
    assert found[1].changes == ("engine", "prefill.env")


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (SECOND, FIRST),
        (FIRST, SECOND),
        (cluster(prefill__engine={"prepareThreads": 9}), FIRST),
        (cluster(mixed={"gpu": {"count": 0}}), FIRST),
        (FIRST, cluster(mixed={"gpu": {"count": 0}})),
        (cluster(drain={"timeoutSeconds": 20}, tls={"mode": "Disabled"}), SECOND),
        (cluster(security={"serviceAccountName": "me", "networkPolicy": False}), FIRST),
        (cluster(observability={"podMonitor": {"enabled": True}}, engine={"prepareThreads": 8}), SECOND),
    ],
)
def test_the_way_back_gives_the_old_hash_and_leaves_the_rest(now, then):
    now = merged(now, {"spec": {"decode": {"replicas": 5}, "rollout": {"paused": True}, "router": {"replicas": 3}}})
    (revision,) = history(now, [kept(1, then)], [])
    patch = way_back(now, revision)
    after = merged(now, {"spec": patch})
    assert revision_of(parse(after)) == revision_of(parse(then))
    assert after["spec"]["decode"]["replicas"] == 5
    assert after["spec"]["rollout"] == {"paused": True}
    assert after["spec"]["router"] == {"replicas": 3}
    for part in ("security", "observability"):
        before = {
            key: value for key, value in now["spec"].get(part, {}).items() if key in ("networkPolicy", "podMonitor")
        }
        assert before.items() <= after["spec"].get(part, {}).items()
    assert not way_back(after, revision), "what is like that already needs no edit"


def test_numbers_of_pods_and_autoscaling_stay():
    now = cluster(decode__replicas=None, decode__scaling=EXTERNAL, engine={"prepareThreads": 7})
    (revision,) = history(now, [kept(1, FIRST)], [])
    patch = way_back(now, revision)
    assert "decode" not in patch
    assert merged(now, {"spec": patch})["spec"]["decode"]["scaling"] == EXTERNAL


def test_a_revision_that_does_not_fit_any_more_is_refused():
    (revision,) = history(SECOND, [kept(1, FIRST)], [])
    strange = type(revision)(1, "0000000000", "", 0, False, (), revision.spec)
    with pytest.raises(UndoError, match="made by another version"):
        way_back(SECOND, strange)
    broken = type(revision)(1, revision.revision, "", 0, False, (), {**revision.spec, "engine": {"gone": 1}})
    with pytest.raises(UndoError, match="does not fit the rest of the spec"):
        way_back(SECOND, broken)


def test_which_revision_is_meant():
    third = cluster(engine={"prepareThreads": 8})
    found = history(third, [kept(1, FIRST), kept(2, SECOND), kept(3, third)], [])
    assert chosen(found, None, "").number == 2
    assert chosen(found, None, revision_of(parse(FIRST))).number == 1, "what serves while something else is rolled out"
    assert chosen(found, None, revision_of(parse(third))).number == 2
    assert chosen(found, 1, "").number == 1
    with pytest.raises(UndoError, match="there is no revision 7; kept are 1, 2, 3"):
        chosen(found, 7, "")
    with pytest.raises(UndoError, match="no revision to go back to"):
        chosen(found[2:], None, "")


DOCUMENTS = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict))


@given(DOCUMENTS, DOCUMENTS)
def test_a_merge_patch_turns_the_one_into_the_other(now, goal):
    patch = merge_patch(now, goal)
    assert merged(now, patch) == goal
    assert (patch == {}) == (now == goal)
    assert (differences(now, goal) == []) == (now == goal)
