"""Where a rollout stands, from one state of a PDCluster."""

import pytest
from cli_objects import cluster, condition

from pdcluster_operator.cli.rollout_actions import Progress, standing

READY, BUSY = condition("Ready", "True", "AllReady"), condition("Ready", "False", "ModelLoading", "0 of 2")


def status(phase, *conditions, updated=2):
    rollout = {"phase": phase, "updated": updated, "total": 4}
    return {"rollout": rollout, "targetRevision": "bbb", "conditions": list(conditions)}


@pytest.mark.parametrize(
    ("told", "progress", "words"),
    [
        (status("Complete", READY, updated=4), Progress.COMPLETE, "demo: rolled out, 4 of 4 pods are of revision bbb"),
        (status("Complete", BUSY), Progress.WAITING, "not ready yet: ModelLoading: 0 of 2"),
        (status("Complete"), Progress.WAITING, "not ready yet"),
        (status("Rolling", BUSY), Progress.WAITING, "demo: 2 of 4 pods are of revision bbb"),
        (status("Paused", READY), Progress.WAITING, "`pdc rollout resume demo` lets it go on"),
        (status("Stalled", BUSY), Progress.FAILED, "stalled: 2 of 4"),
        (
            status("Rolling", condition("Degraded", "True", "ProgressDeadlineExceeded", "nothing came up")),
            Progress.FAILED,
            "ProgressDeadlineExceeded: nothing came up",
        ),
        ({"conditions": [condition("Degraded", "True", "InvalidSpec", "bad")]}, Progress.FAILED, "InvalidSpec: bad"),
        (
            status("Rolling", condition("Degraded", "True", "ImageUnavailable", "x")),
            Progress.WAITING,
            "2 of 4 pods are of revision bbb",
        ),
        ({"observedGeneration": 2}, Progress.WAITING, "waiting for the operator to see the latest spec"),
    ],
)
def test_where_a_rollout_stands(told, progress, words):
    found = standing(cluster(told))
    assert (found.progress, words in found.line) == (progress, True), found
