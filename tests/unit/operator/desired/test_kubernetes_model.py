"""Where pods find their model: a folder or one file, mounted so that the worker is given the file's own path."""

from typing import Any

import pytest
from cel_table import edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.kubernetes_network import Origin, network_policies
from pdcluster_operator.desired.kubernetes_pod import Release, templates

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def bodies(source: dict[str, Any], **edit: Any) -> dict[str, dict[str, Any]]:
    """The pods' specs by role."""
    manifest = edited({"model.source": source, **{key.replace("__", "."): value for key, value in edit.items()}})
    return {role: template["spec"] for role, template in templates(parse(manifest), Release("worker:1")).items()}


def model_of(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The volume, its mount, and the path that the process is given."""
    (container,) = body["containers"]
    command = container["command"]
    volume = next(entry for entry in body["volumes"] if entry["name"] == "model")
    mount = next(entry for entry in container["volumeMounts"] if entry["name"] == "model")
    return volume, mount, command[command.index("--model-path") + 1]


@pytest.mark.parametrize("role", ["prefill", "decode", "router"])
@pytest.mark.parametrize(
    ("path", "seen"),
    [("/data/ernie", "/models"), ("/data/ernie.gguf", "/models/ernie.gguf"), ("/data/gguf", "/models")],
)
def test_a_path_of_the_node(role: str, path: str, seen: str) -> None:
    volume, mount, told = model_of(bodies({"hostPath": {"path": path}})[role])
    assert volume["hostPath"] == {"path": path}
    assert (mount["mountPath"], told, mount["readOnly"]) == (seen, seen, True)


@pytest.mark.parametrize("role", ["prefill", "router"])
@pytest.mark.parametrize(
    ("sub_path", "seen"), [(None, "/models"), ("ernie", "/models"), ("quantised/ernie.gguf", "/models/ernie.gguf")]
)
def test_a_claim(role: str, sub_path: str | None, seen: str) -> None:
    source = {"claimName": "models", **({"subPath": sub_path} if sub_path else {})}
    volume, mount, told = model_of(bodies({"pvc": source})[role])
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert (mount["mountPath"], told, mount.get("subPath")) == (seen, seen, sub_path)


def test_an_image() -> None:
    volume, mount, told = model_of(bodies({"image": {"reference": "registry/model:1"}})["decode"])
    assert volume["image"] == {"reference": "registry/model:1", "pullPolicy": "IfNotPresent"}
    assert (mount["mountPath"], told) == ("/models", "/models")


def test_a_hub_is_fetched_from_before_the_worker_starts() -> None:
    mirror = [{"name": "HF_ENDPOINT", "value": "http://mirror.local:8081"}]
    source = {"huggingFace": {"repo": "owner/tiny", "revision": COMMIT, "tokenSecret": "hub"}}
    found = bodies(source, prefill__env=mirror)
    (fetch,) = found["prefill"]["initContainers"]
    assert fetch["image"] == "worker:1"
    assert fetch["command"][:4] == ["python", "-m", "pdcluster_worker", "fetch"]
    assert fetch["command"][-6:] == ["--repo", "owner/tiny", "--revision", COMMIT, "--to", "/models"]
    variables = {entry["name"]: entry for entry in fetch["env"]}
    assert variables["HF_ENDPOINT"]["value"] == "http://mirror.local:8081"
    assert variables["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert fetch["securityContext"]["readOnlyRootFilesystem"]
    (mount,) = [entry for entry in fetch["volumeMounts"] if entry["name"] == "model"]
    assert not mount.get("readOnly")
    (main,) = found["prefill"]["containers"]
    assert "HF_TOKEN" not in {entry["name"] for entry in main["env"]}
    assert "--no-weights" in found["router"]["initContainers"][0]["command"], "a router needs no weights"


def test_the_hub_and_its_mirror_can_be_reached() -> None:
    mirror = [{"name": "HF_ENDPOINT", "value": "http://mirror.local:8081"}]
    manifest = edited({"model.source": {"huggingFace": {"repo": "owner/tiny"}}, "prefill.env": mirror})
    for policy in network_policies(parse(manifest), Origin("system")):
        ports = {
            port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", []) if "to" not in rule
        }
        assert {443, 8081} <= ports
