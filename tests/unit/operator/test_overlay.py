"""podTemplate over the generated template: maps merge, keyed lists merge, identity stays."""

from typing import Any

from pdcluster_operator.desired import labels
from pdcluster_operator.desired.overlay import overlaid

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {labels.CLUSTER: "c", labels.ROLE: "prefill"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "command": ["python"],
                "env": [{"name": "A", "value": "1"}],
                "ports": [{"name": "grpc", "containerPort": 8188}],
                "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
            }
        ],
        "volumes": [{"name": "tls", "secret": {"secretName": "s"}}],
        "tolerations": [{"key": "a"}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1},
    },
}


def main(overlay: dict[str, Any]) -> dict[str, Any]:
    return dict(overlaid(TEMPLATE, {"spec": {"containers": [{"name": "main", **overlay}]}})["spec"]["containers"][0])


def test_nothing_over_it_is_the_same() -> None:
    assert overlaid(TEMPLATE, {}) == TEMPLATE


def test_items_with_a_key_are_merged_and_new_ones_added() -> None:
    env = main({"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]})["env"]
    assert env == [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    spec = overlaid(TEMPLATE, {"spec": {"containers": [{"name": "side", "image": "x"}]}})["spec"]
    assert [container["name"] for container in spec["containers"]] == ["main", "side"]


def test_lists_without_a_key_are_replaced_and_maps_merged() -> None:
    spec = overlaid(TEMPLATE, {"spec": {"tolerations": [{"key": "b"}], "securityContext": {"runAsUser": 2}}})["spec"]
    assert spec["tolerations"] == [{"key": "b"}]
    assert spec["securityContext"] == {"runAsNonRoot": True, "runAsUser": 2}


def test_what_makes_a_pod_a_member_stays() -> None:
    metadata = {"labels": {labels.ROLE: "decode", "mine": "yes"}, "annotations": {"note": "x"}}
    found = overlaid(TEMPLATE, {"metadata": metadata})["metadata"]
    assert found == {
        "labels": {labels.CLUSTER: "c", labels.ROLE: "prefill", "mine": "yes"},
        "annotations": {"note": "x"},
    }
    changed = main({"command": ["evil"], "args": ["x"], "ports": [{"containerPort": 1}]})
    assert changed["command"] == ["python"]
    assert "args" not in changed
    assert changed["ports"] == [{"name": "grpc", "containerPort": 8188}]


def test_certificates_stay_where_they_are() -> None:
    mounts = main({"volumeMounts": [{"name": "tls", "mountPath": "/elsewhere"}, {"name": "x", "mountPath": "/x"}]})
    assert mounts["volumeMounts"] == [{"name": "tls", "mountPath": "/tls"}, {"name": "x", "mountPath": "/x"}]
    spec = overlaid(TEMPLATE, {"spec": {"volumes": [{"name": "tls", "emptyDir": {}}]}})["spec"]
    assert spec["volumes"] == [{"name": "tls", "secret": {"secretName": "s"}}]
