"""What `pdc drain` and `pdc resume` do: the request is an annotation on the pod, and the operator acts upon it.

The request names the pod's uid: a new pod of the same name is not meant by it.
"""

import asyncio
from collections.abc import Callable

from pdcluster_operator.cli.session import ClusterError, Session
from pdcluster_operator.cli.show import say
from pdcluster_operator.cli.user_api import Changed, Selection
from pdcluster_operator.cli.view import DrainState, drain_state, is_ready
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import WORKER_ROLES
from pdcluster_operator.resources import POD, Manifest

DONE_BY_DELETION = "is gone: it was deleted or replaced"


async def ask(session: Session, name: str, seconds: float | None) -> None:
    """Asks for the drain, and waits for its end unless `seconds` is None. Raises ClusterError."""
    pod, cluster = await _worker(session, name)
    if cluster["spec"].get("paused"):
        raise ClusterError(
            f"spec.paused of PDCluster {cluster['metadata']['name']} is true: nothing would drain {name}"
        )
    await _note(session, pod, pod["metadata"]["uid"])
    if seconds is None:
        say(f"pod {name} is asked to drain")
        return
    timeout = (cluster["spec"].get("drain") or {}).get("timeoutSeconds", 300)
    say(f"pod {name} drains; what it still has after {timeout} s goes to other workers")
    last = await _until(session, pod, seconds, lambda found: drain_state(found) is DrainState.DRAINED)
    if last is None:
        say(f"pod {name} {DONE_BY_DELETION}")
        return
    say(f"pod {name} is drained, and stays so until `pdc resume {name}` or until it is deleted")


async def take_back(session: Session, name: str, seconds: float | None) -> None:
    """Takes the request back, and waits until the pod serves unless `seconds` is None. Raises ClusterError."""
    pod, _ = await _worker(session, name)
    if labels.DRAIN not in (pod["metadata"].get("annotations") or {}):
        if drain_state(pod) is DrainState.NONE:
            say(f"pod {name} is in service")
            return
        raise ClusterError(f"pod {name} drains because its role shrinks or is rolled out, which `pdc why` explains")
    await _note(session, pod, None)
    if seconds is None:
        say(f"pod {name} is asked to go on")
        return
    last = await _until(session, pod, seconds, lambda found: drain_state(found) is DrainState.NONE)
    say(f"pod {name} {DONE_BY_DELETION if last is None else 'is in service'}")


async def _worker(session: Session, name: str) -> tuple[Manifest, Manifest]:
    """A worker pod and its PDCluster."""
    pod = await session.api.get(POD, session.namespace, name)
    if pod is None:
        raise ClusterError(f"there is no pod {name} in namespace {session.namespace}")
    marks = pod["metadata"].get("labels") or {}
    if labels.CLUSTER not in marks:
        raise ClusterError(f"pod {name} belongs to no PDCluster")
    if marks.get(labels.ROLE) not in WORKER_ROLES:
        raise ClusterError(f"pod {name} is a {marks.get(labels.ROLE)} pod: only workers drain; delete it instead")
    if "deletionTimestamp" in pod["metadata"]:
        raise ClusterError(f"pod {name} is on its way out already")
    return pod, await session.cluster(marks[labels.CLUSTER])


async def _note(session: Session, pod: Manifest, uid: str | None) -> None:
    metadata = {"uid": pod["metadata"]["uid"], "annotations": {labels.DRAIN: uid}}
    await session.api.merge(POD, session.namespace, pod["metadata"]["name"], {"metadata": metadata})


async def _until(session: Session, pod: Manifest, seconds: float, holds: Callable[[Manifest], bool]) -> Manifest | None:
    """The pod when it is so far; None when it is gone. Raises ClusterError when the time is up."""
    last: Manifest | None = pod
    try:
        async with asyncio.timeout(seconds):
            selection = Selection(fields=f"metadata.name={pod['metadata']['name']}")
            async for change in session.api.follow(POD, session.namespace, selection):
                last = _state(change.manifest, change.gone) if isinstance(change, Changed) else _first(change.items)
                if last is None or last["metadata"]["uid"] != pod["metadata"]["uid"]:
                    return None
                if holds(last):
                    return last
    except TimeoutError:
        raise ClusterError(_too_late(last or pod, seconds)) from None
    return None


def _state(manifest: Manifest, gone: bool) -> Manifest | None:
    return None if gone else manifest


def _first(items: tuple[Manifest, ...]) -> Manifest | None:
    return items[0] if items else None


def _too_late(pod: Manifest, seconds: float) -> str:
    """Why it may have taken so long; the request stands all the same."""
    name, state = pod["metadata"]["name"], drain_state(pod)
    if state is DrainState.ASKED and not is_ready(pod):
        return f"pod {name} is not ready, and is drained when it is; gave up waiting after {seconds:g} s"
    if state in {DrainState.ASKED, DrainState.DRAINED}:
        return f"nobody has acted on the request after {seconds:g} s: does the operator run (`pdc preflight`)?"
    return f"pod {name} is still {state.value} after {seconds:g} s; the request stands"
