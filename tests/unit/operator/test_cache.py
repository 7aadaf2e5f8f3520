"""What is news to the cache: facts that were not known, and nothing else."""

import pytest
from cel_table import edited
from pretend_cluster import KEY, PretendCluster

from pdcluster_operator.cache import Cache
from pdcluster_operator.resources import Manifest


@pytest.fixture(scope="module")
def settled() -> PretendCluster:
    cluster = PretendCluster(edited({"tls": {"mode": "Disabled"}})["spec"])
    cluster.settle()
    return cluster


def known(cluster: PretendCluster) -> list[tuple[str, Manifest]]:
    """Every object of the cluster, with a version."""
    found = [(manifest["kind"], manifest) for manifest in cluster.objects.values()]
    found += [("Pod", pod) for pod in cluster.pods.values()]
    return [(kind, versioned(manifest, 7)) for kind, manifest in found]


def versioned(manifest: Manifest, version: int) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}}


def test_an_echo_is_no_news_and_neither_is_a_version_without_facts(settled: PretendCluster) -> None:
    cache = Cache()
    for kind, manifest in known(settled):
        assert cache.put(kind, manifest)
        assert not cache.put(kind, manifest)
        assert not cache.put(kind, versioned(manifest, 8))
        assert not cache.put(kind, versioned(manifest, 6)), "older than what is known"
    assert cache.view(KEY).changes == len(known(settled))


def test_what_changes_a_fact_is_news(settled: PretendCluster) -> None:
    cache = Cache()
    objects = known(settled)
    for kind, manifest in objects:
        cache.put(kind, manifest)
    before = cache.view(KEY).changes
    for kind, manifest in objects:
        edited = versioned(manifest, 8)
        edited["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert cache.put(kind, edited), kind
    cache.remove(objects[0][0], objects[0][1])
    assert cache.view(KEY).changes == before + len(objects) + 1


def test_every_edit_of_a_pdcluster_is_news_and_its_echo_is_not() -> None:
    cache = Cache()
    manifest: Manifest = {"metadata": {"name": "demo", "namespace": "default", "uid": "1", "resourceVersion": "1"}}
    assert cache.put("PDCluster", manifest)
    noted = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": "2", "annotations": {"a": "b"}}}
    assert cache.put("PDCluster", noted)
    assert not cache.put("PDCluster", noted)
    assert not cache.put("PDCluster", manifest)


def test_what_a_listing_has_not_brought_is_forgotten_unless_it_is_younger(settled: PretendCluster) -> None:
    cache = Cache()
    for kind, manifest in known(settled):
        cache.put(kind, manifest)
    services = {manifest["metadata"]["uid"] for kind, manifest in known(settled) if kind == "Service"}
    pods = {pod["metadata"]["uid"] for pod in settled.pods.values()}
    kept = services.pop()

    assert cache.keep_only("Service", "elsewhere", set(), 7) == []
    assert cache.keep_only("Service", "", set(), 6) == []
    assert set(cache.keep_only("Service", KEY[0], {kept}, 7)) == {(KEY, uid) for uid in services}
    assert set(cache.keep_only("Pod", "", set(), 7)) == {(KEY, uid) for uid in pods}
    assert not cache.view(KEY).pods
    assert {child.uid for child in cache.view(KEY).children.values() if child.key.kind == "Service"} == {kept}


def test_what_belongs_to_no_cluster_is_no_news() -> None:
    cache = Cache()
    assert not cache.put("Service", {"metadata": {"name": "other", "namespace": "default", "uid": "1"}})
    assert cache.keys() == []
