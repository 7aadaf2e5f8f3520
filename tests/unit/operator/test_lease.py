"""Who acts: an API server that is away is waited for, a refusal is not; nothing is written without the lease."""

import asyncio
from typing import Any

import pytest

from pdcluster_operator.kube import KubeError
from pdcluster_operator.lease import Leadership, LeadershipLostError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class OneLease:
    """A Lease in memory behind the calls that Leadership makes; `errors` are raised by the next calls, in order."""

    def __init__(self, *errors: KubeError) -> None:
        self.errors = list(errors)
        self.lease: dict[str, Any] | None = None
        self.calls = 0

    async def get(self, *_: object) -> dict[str, Any] | None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.lease

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.lease = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": "7"}}
        return self.lease

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return await self.create(manifest)


def leadership(kube: OneLease, seconds: float = 0.2) -> Leadership:
    return Leadership(kube, "here", "operator", "me", seconds=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [0, 429, 500, 503])
async def test_an_api_server_that_is_away_is_waited_for(status: int) -> None:
    kube = OneLease(*(KubeError(status, "", "away") for _ in range(3)))
    async with asyncio.timeout(10):
        await leadership(kube).acquire()
    assert kube.calls == 4
    assert kube.lease is not None
    assert kube.lease["spec"]["holderIdentity"] == "me"


async def test_a_refusal_is_told_at_once() -> None:
    kube = OneLease(KubeError(403, "Forbidden", "no right to leases"))
    with pytest.raises(KubeError, match="no right to leases"):
        await leadership(kube).acquire()
    assert kube.calls == 1


async def test_a_lease_that_cannot_be_renewed_ends_the_fence_before_it_runs_out() -> None:
    kube = OneLease()
    ours = leadership(kube)
    await ours.acquire()
    assert 0 < ours.remaining() < 0.2
    kube.errors = [KubeError(0, "", "cut off") for _ in range(1000)]
    with pytest.raises(LeadershipLostError, match="could not be renewed"):
        async with asyncio.timeout(10):
            await ours.keep()
    assert ours.remaining() <= 0


async def test_a_lease_that_another_took_ends_leadership() -> None:
    kube = OneLease()
    ours = leadership(kube, seconds=5)
    await ours.acquire()
    assert kube.lease is not None
    kube.lease["spec"] |= {"holderIdentity": "other", "renewTime": "later"}
    with pytest.raises(LeadershipLostError, match="held by other"):
        async with asyncio.timeout(10):
            await ours.keep()
