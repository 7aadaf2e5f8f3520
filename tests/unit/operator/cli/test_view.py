"""What `pdc status` takes from the objects, and its tables."""

from cli_objects import cluster, condition, pod
from rich.console import Console

from pdcluster_operator.cli.options import Output
from pdcluster_operator.cli.status_show import Listed, Mirror, Question, document_of
from pdcluster_operator.cli.tables import status_tables
from pdcluster_operator.cli.user_api import Changed
from pdcluster_operator.cli.view import DrainState, RoleView, drain_state, pod_view, status_view
from pdcluster_operator.resources import PD_CLUSTER, POD

ROLE = {"name": "decode", "desired": 4, "effective": 2, "ready": 1, "updated": 1, "draining": 1, "limitedBy": "Max"}
STATUS = {
    "currentRevision": "aaa",
    "targetRevision": "bbb",
    "rollout": {"phase": "Rolling", "updated": 1, "total": 4},
    "roles": [ROLE],
    "conditions": [
        condition("Ready", "False", "RollingOut", "1 of 4 pods"),
        condition("Degraded", "False"),
    ],
}


def shown(*views):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(status_tables(views))
    return console.export_text()


def test_a_view_has_all_that_is_told():
    pods = [pod("demo-decode-10", "decode"), pod("demo-router-x", "router"), pod("demo-decode-9", "decode")]
    view = status_view(cluster(STATUS), pods)
    assert [entry.name for entry in view.pods] == ["demo-decode-9", "demo-decode-10", "demo-router-x"]
    assert view.roles == (RoleView("decode", 4, 2, 1, 1, 1, "Max"), RoleView("router", 1, 1, 1, 1, 0, ""))
    assert (view.revisions.current, view.revisions.target, view.revisions.updated) == ("aaa", "bbb", 1)
    text = shown(view)
    for words in ("prod/demo", "1 of 4 pods", "aaa -> bbb  Rolling: 1 of 4 pods", "Max", "demo-decode-10"):
        assert words in text


def test_a_cluster_that_nobody_has_looked_at_is_shown_too():
    fresh = cluster()
    del fresh["status"]
    view = status_view(fresh, [])
    assert (view.current, view.conditions, view.pods) == (False, (), ())
    assert "has not told of the latest spec yet" in shown(view)
    assert "spec.paused is true" in shown(status_view(cluster(paused=True), []))
    assert "no PDClusters found" in shown()


def test_a_pods_phase_is_its_trouble_first():
    broken = pod("p", "decode", ready=False)
    broken["status"]["containerStatuses"] = [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]
    assert (pod_view(broken).phase, pod_view(broken).restarts) == ("CrashLoopBackOff", 3)
    broken["metadata"]["deletionTimestamp"] = "now"
    assert pod_view(broken).phase == "Terminating"
    assert pod_view(pod("p", "decode")).phase == "Running"


def test_drain_marks_count_for_the_pod_that_they_name():
    assert drain_state(pod("p", "decode")) is DrainState.NONE
    assert drain_state(pod("p", "decode", drain="u")) is DrainState.ASKED
    assert drain_state(pod("p", "decode", drain="u", drain_uid="u")) is DrainState.DRAINING
    assert drain_state(pod("p", "decode", drain_uid="u", drained="0")) is DrainState.DRAINED
    assert drain_state(pod("p", "decode", drain="old", drain_uid="old", drained="0")) is DrainState.NONE


def test_a_mirror_follows_a_watch():
    mirror = Mirror()
    mirror.take(PD_CLUSTER, Listed((cluster(STATUS),)))
    mirror.take(POD, Listed((pod("demo-decode-0", "decode"), pod("demo-decode-1", "decode"))))
    mirror.take(POD, Changed(pod("demo-decode-0", "decode"), gone=True))
    mirror.take(POD, Changed(pod("demo-decode-1", "decode", drain="u"), gone=False))
    (view,) = mirror.views()
    assert [(entry.name, entry.drain) for entry in view.pods] == [("demo-decode-1", DrainState.ASKED)]
    foreign = pod("other-0", "decode")
    foreign["metadata"]["namespace"] = "elsewhere"
    mirror.take(POD, Listed((foreign,)))
    assert mirror.views()[0].pods == ()
    mirror.take(PD_CLUSTER, Listed(()))
    assert mirror.views() == ()


def test_documents_and_selections():
    view = status_view(cluster(STATUS), [])
    one, every = Question("demo", False, Output.JSON), Question(None, False, Output.JSON)
    assert document_of([view], one)["name"] == "demo"
    assert [entry["name"] for entry in document_of([view], every)["items"]] == ["demo"]
    assert document_of([], one) == {"items": []}
    assert one.selections()[PD_CLUSTER].query() == {"fieldSelector": "metadata.name=demo"}
    assert every.selections()[POD].query() == {"labelSelector": "pdcluster.dev/cluster"}
