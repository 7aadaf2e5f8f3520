"""Secrets of certificates are made where there is none, and written anew where they are the cluster's own."""

import asyncio
from typing import Any, cast

import pytest
from cel_table import edited
from pretend_cluster import PretendCluster

from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.own_authority import ForeignSecretError
from pdcluster_operator.reconcile.rotation import DEFAULT_PERIODS
from pdcluster_operator.secrets_store import CertificateStore

Manifest = dict[str, Any]


class FakeKube:
    """One namespace's Secrets, by name."""

    def __init__(self, *found: Manifest) -> None:
        self.stored = {entry["metadata"]["name"]: entry for entry in found}

    async def apply(self, manifest: Manifest, *, only_create: bool = False, version: str | None = None) -> Manifest:
        name = manifest["metadata"]["name"]
        if name in self.stored and (only_create or version != self.stored[name]["metadata"]["resourceVersion"]):
            raise KubeError(409, "Conflict", name)
        metadata = {**manifest["metadata"], "resourceVersion": "2"}
        self.stored[name] = {**manifest, "metadata": metadata}
        return self.stored[name]

    async def get(self, _: Any, __: str, name: str) -> Manifest | None:
        return self.stored.get(name)


CLUSTER = PretendCluster(edited({})["spec"]).cluster


def issue(kube: FakeKube) -> list[str]:
    store = CertificateStore(cast(Kube, kube), DEFAULT_PERIODS, lambda: 1_767_225_600.0)
    made = asyncio.run(store.issue(CLUSTER, ("decode",), is_first=True))
    return [entry["metadata"]["name"] for entry in made]


def secret(name: str, **metadata: Any) -> Manifest:
    return {"metadata": {"name": name, "resourceVersion": "1", **metadata}, "data": {}}


def test_what_is_not_there_is_made() -> None:
    assert issue(FakeKube()) == ["demo-ca", "demo-decode-tls"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [{"uid": "cluster-uid"}]},
        {"annotations": {"pdcluster.dev/made-for": "cluster-uid"}},
        {"annotations": {"pdcluster.dev/adopt": "demo"}},
    ],
    ids=["owned", "an orphan", "handed over"],
)
def test_the_clusters_own_secret_is_written_anew(metadata: Manifest) -> None:
    assert issue(FakeKube(secret("demo-decode-tls", **metadata))) == ["demo-ca", "demo-decode-tls"]


@pytest.mark.parametrize("name", ["demo-ca", "demo-decode-tls"])
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"annotations": {"pdcluster.dev/made-for": "another-uid"}},
        {"ownerReferences": [{"uid": "another-uid"}], "annotations": {"pdcluster.dev/adopt": "demo"}},
    ],
    ids=["a stranger's", "another cluster's", "owned by another"],
)
def test_a_secret_of_somebody_else_is_never_written_over(name: str, metadata: Manifest) -> None:
    kube = FakeKube(secret(name, **metadata))
    with pytest.raises(ForeignSecretError, match=f"left alone: Secret default/{name}") as error:
        issue(kube)
    assert error.value.condition == "NameConflict"
    assert kube.stored[name]["data"] == {}
