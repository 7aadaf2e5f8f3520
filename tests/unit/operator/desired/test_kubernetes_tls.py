"""What cert-manager is asked for, and which Secret each pod mounts."""

from typing import Any

import pytest
from cel_table import edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.kubernetes_pod import Release, templates
from pdcluster_operator.desired.kubernetes_tls import certificates

ISSUER = {"issuerRef": {"name": "internal", "kind": "ClusterIssuer"}}


def cluster(tls: dict[str, Any]) -> Any:
    return parse({**edited({"tls": tls}), "metadata": {"name": "demo", "namespace": "team"}})


def test_each_role_and_the_operator_has_its_own_name() -> None:
    asked = {entry["metadata"]["name"]: entry["spec"] for entry in certificates(cluster(ISSUER))}
    assert {name: spec["dnsNames"] for name, spec in asked.items()} == {
        f"demo-{role}-cert": [f"{role}.demo.team.pdcluster"] for role in ("prefill", "decode", "router", "operator")
    }
    for name, spec in asked.items():
        assert spec["secretName"] == name
        assert spec["issuerRef"] == {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "internal"}
        assert {"server auth", "client auth"} <= set(spec["usages"]), "every pod is both"
        assert spec["secretTemplate"]["labels"]["pdcluster.dev/cluster"] == "demo", "so that the operator sees it"


def test_without_an_issuer_nothing_is_asked_for() -> None:
    assert certificates(cluster({})) == []
    assert certificates(cluster({"secretName": "certs"})) == []


@pytest.mark.parametrize(
    ("tls", "secret"), [({}, "demo-decode-tls"), (ISSUER, "demo-decode-cert"), ({"secretName": "certs"}, "certs")]
)
def test_a_pod_mounts_the_secret_of_its_role(tls: dict[str, Any], secret: str) -> None:
    body = templates(cluster(tls), Release("worker:1"))["decode"]["spec"]
    (volume,) = [entry for entry in body["volumes"] if entry["name"] == "tls"]
    assert volume["secret"]["secretName"] == secret
