"""The line on stdout that programs read: what runs, and where."""

import json
import sys
from collections.abc import Sequence

from pdcluster_operator.desired.pod import PodPlan
from pdcluster_operator.local.output import without_waiting
from pdcluster_operator.local.pod import Pod


def endpoint(router: PodPlan) -> str:
    return f"http://{router.host}:{router.ports.http}"


def entry(pod: Pod) -> dict[str, str | int]:
    """A router has no gRPC server: `grpc` is where it listens."""
    plan = pod.plan
    metrics = plan.ports.metrics or plan.ports.http
    return {
        "name": plan.name,
        "role": plan.role,
        "pid": pod.pid,
        "grpc": plan.advertise,
        "metrics": f"http://{plan.host}:{metrics}/metrics",
    }


def line(pods: Sequence[Pod]) -> str:
    router = next(pod.plan for pod in pods if pod.plan.is_router)
    return json.dumps({"endpoint": endpoint(router), "processes": [entry(pod) for pod in pods]})


class Reporter:
    """Writes lines, if they are wanted. Call in the supervisor's loop."""

    def __init__(self, wanted: bool) -> None:
        self._output = without_waiting(sys.stdout) if wanted else None

    def write(self, pods: Sequence[Pod]) -> None:
        if self._output is not None:
            self._output.write(line(pods) + "\n")
            self._output.flush()

    def close(self) -> None:
        if self._output is not None and self._output is not sys.stdout:
            self._output.close()
