"""Who of several operators acts: a Lease, and how long a write may still be under way.

Time is the monotonic clock of this machine, and counts from when a renewal was sent, not from when it was answered.
Others' time stamps are never compared with ours: a holder counts as gone when its Lease has not changed for as long as
it lasts, by our own clock.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.resources import LEASE, Manifest

log = structlog.get_logger(__name__)

MARGIN_SECONDS = 2.0
RENEWALS_PER_LEASE = 7
"""A lease of 15 s is renewed about every 2 s."""


class LeadershipLostError(OperatorError):
    """The lease ran out, or somebody else has it: this process must end."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The Lease as it was found, and when it was first found like that."""

    holder: str
    renewed: str
    since: float


class Leadership:
    """`acquire`, then `keep` for as long as the process acts. `remaining` is the fence of every write."""

    def __init__(self, kube: Kube, namespace: str, name: str, identity: str, *, seconds: float = 15.0) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._margin = min(MARGIN_SECONDS, seconds / 4)
        self._held_until = float("-inf")
        self._seen: _Seen | None = None

    def remaining(self) -> float:
        """Seconds that a write begun now may take; not positive when none may be begun."""
        return self._held_until - self._margin - _monotonic()

    async def acquire(self) -> None:
        """Returns when the lease is ours, however long the API server is away; raises KubeError for a refusal."""
        while not await self._is_taken():
            await asyncio.sleep(self._seconds / RENEWALS_PER_LEASE)

    async def keep(self) -> None:
        """Renews until cancelled; raises LeadershipLostError when that failed for too long."""
        while self.remaining() > 0:
            await asyncio.sleep(self._seconds / RENEWALS_PER_LEASE)
            with contextlib.suppress(KubeError):
                if not await self._try() and self._seen and self._seen.holder not in {"", self._identity}:
                    raise LeadershipLostError(f"the lease is held by {self._seen.holder}")
        raise LeadershipLostError(f"the lease could not be renewed within {self._seconds:.0f} s")

    async def release(self) -> None:
        """Lets another take over at once; failing to is no error, since the lease runs out."""
        self._held_until = float("-inf")
        with contextlib.suppress(KubeError):
            found = await self._kube.get(LEASE, self._namespace, self._name)
            if found and found["spec"].get("holderIdentity") == self._identity:
                await self._kube.replace(self._manifest("", found))

    async def _is_taken(self) -> bool:
        """An API server that is away is waited for: an end would only mean a start, later and later."""
        try:
            return await self._try()
        except KubeError as error:
            if error.is_permanent:
                raise
            log.warning("lease_unknown", reason=str(error))
            await asyncio.sleep(error.retry_after or 0.0)
            return False

    async def _try(self) -> bool:
        """One attempt to get or renew the lease; raises KubeError when the API server does not answer."""
        started = _monotonic()
        found = await self._kube.get(LEASE, self._namespace, self._name)
        if found is not None and not self._is_free(found):
            return False
        manifest = self._manifest(self._identity, found)
        try:
            await (self._kube.create(manifest) if found is None else self._kube.replace(manifest))
        except KubeError as error:
            if error.is_conflict:
                return False
            raise
        self._held_until = started + self._seconds
        return True

    def _is_free(self, found: Manifest) -> bool:
        spec = found["spec"]
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if self._seen is None or (self._seen.holder, self._seen.renewed) != (holder, renewed):
            self._seen = _Seen(holder, renewed, _monotonic())
        lasts = float(spec.get("leaseDurationSeconds") or self._seconds)
        return holder in {"", self._identity} or _monotonic() - self._seen.since > lasts

    def _manifest(self, holder: str, found: Manifest | None) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = found["spec"] if found else {}
        changed = old.get("holderIdentity") != holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(round(self._seconds), 1),
            "renewTime": now,
            "acquireTime": now if changed else old.get("acquireTime", now),
            "leaseTransitions": old.get("leaseTransitions", 0) + (1 if changed else 0),
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        if found:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
