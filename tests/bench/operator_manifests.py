"""The PDClusters of the benchmark, and the children that the operator makes of each, as bytes ready to be sent."""

import json
import time
from dataclasses import dataclass
from typing import Any

from pdcluster_operator import own_authority
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.kubernetes_network import Origin
from pdcluster_operator.desired.kubernetes_pod import Release
from pdcluster_operator.reconcile.decide import decide
from pdcluster_operator.reconcile.rotation import Periods
from pdcluster_operator.reconcile.situation import Apply, Create, IssueCertificates, Situation
from pdcluster_operator.resources import BY_KIND, OPTIONAL

Manifest = dict[str, Any]

NAMESPACE = "bench"
IMAGE = "example.invalid/worker:test"
SAMPLE = "name-0000"
UID = "00000000-0000-4000-8000-000000000000"
PERIODS = Periods(3650 * 86400.0, 365 * 86400.0, 60.0)


@dataclass(frozen=True)
class Child:
    """Of the cluster named SAMPLE with the uid UID: both are replaced in path and body."""

    path: str
    body: str

    def of(self, name: str, uid: str) -> tuple[str, bytes]:
        return self.path.replace(SAMPLE, name), self.body.replace(SAMPLE, name).replace(UID, uid).encode()


def name_of(number: int) -> str:
    return f"name-{number:04}"


def cluster(name: str) -> Manifest:
    """2P2D on CPUs, decode Managed, all else by default: MTLS, a PDB, NetworkPolicies."""
    scaling = {"mode": "Managed", "minReplicas": 2, "maxReplicas": 4}
    return {
        "apiVersion": "pdcluster.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"name": "tiny", "source": {"hostPath": {"path": "/models/tiny"}}},
            "prefill": {"replicas": 2, "gpu": {"count": 0}},
            "decode": {"gpu": {"count": 0}, "scaling": scaling},
            "transport": {"kv": {"protocol": "TCP"}},
        },
    }


def children() -> list[Child]:
    """What the operator's own decision is for a cluster of which nothing exists, certificates included."""
    sample = cluster(SAMPLE)
    sample["metadata"] |= {"uid": UID, "resourceVersion": "1", "generation": 1}
    now = time.time()
    situation = Situation(
        cluster=parse(sample),
        children={},
        pods=(),
        drained=frozenset(),
        now=now,
        release=Release(IMAGE),
        origin=Origin(NAMESPACE),
        periods=PERIODS,
        user_certificate=None,
        absent=frozenset(resource.kind for resource in OPTIONAL),
        linked={},
    )
    found: list[Manifest] = []
    for action in decide(situation).actions:
        match action:
            case Apply(manifest) | Create(manifest):
                found.append(manifest)
            case IssueCertificates(roles):
                authority = own_authority.made(situation.cluster, PERIODS, now)
                found.append(authority)
                found += [own_authority.leaf(situation.cluster, role, authority, PERIODS, now) for role in roles]
            case _:
                raise AssertionError(f"not for a cluster of which nothing exists: {action}")
    return [_child(manifest) for manifest in found]


def _child(manifest: Manifest) -> Child:
    metadata = manifest["metadata"]
    path = BY_KIND[manifest["kind"]].path(metadata["namespace"], metadata["name"])
    return Child(path, json.dumps(manifest))
