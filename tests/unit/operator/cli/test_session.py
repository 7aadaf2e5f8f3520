"""How `pdc` finds a cluster, and how refusals are told."""

import json
from pathlib import Path

import pytest

from pdcluster_operator.cli.session import ClusterError, Place, explained, find_kubeconfig, in_session
from pdcluster_operator.kube import KubeError


def kubeconfig(folder: Path, **context: str) -> Path:
    path = folder / "config"
    content = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **context}}],
    }
    path.write_text(json.dumps(content))
    return path


async def namespace_of(session):
    return session.namespace


def test_which_kubeconfig(tmp_path):
    path = kubeconfig(tmp_path)
    assert find_kubeconfig(Place(kubeconfig=str(path)), {}) == str(path)
    assert find_kubeconfig(Place(), {"KUBECONFIG": f"/nowhere:{path}"}) == f"/nowhere:{path}"
    (tmp_path / ".kube").mkdir()
    path.rename(tmp_path / ".kube" / "config")
    assert find_kubeconfig(Place(), {"HOME": str(tmp_path)}) == str(tmp_path / ".kube" / "config")
    assert find_kubeconfig(Place(), {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None
    with pytest.raises(ClusterError, match="there is no kubeconfig /gone"):
        find_kubeconfig(Place(kubeconfig="/gone"), {})
    with pytest.raises(ClusterError, match="name one with --kubeconfig"):
        find_kubeconfig(Place(), {"HOME": "/nowhere"})


def test_which_namespace(tmp_path):
    place = Place(kubeconfig=str(kubeconfig(tmp_path)))
    assert in_session(place, namespace_of) == "default"
    place = Place(kubeconfig=str(kubeconfig(tmp_path, namespace="prod")))
    assert in_session(place, namespace_of) == "prod"
    assert in_session(Place("mine", "here", place.kubeconfig), namespace_of) == "mine"
    with pytest.raises(ClusterError, match="has no context there; it has here"):
        in_session(Place(context="there", kubeconfig=place.kubeconfig), namespace_of)


@pytest.mark.parametrize("text", ["", "[]", "{", "current-context: x\ncontexts: 7", "kind: Config"])
def test_a_kubeconfig_that_is_none(text, tmp_path):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ClusterError, match="cannot be used"):
        in_session(Place(kubeconfig=str(path)), namespace_of)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KubeError(0, "", "no answer within 30.0 s"), "the API server does not answer: no answer within 30.0 s"),
        (KubeError(401, "Unauthorized", "Unauthorized"), "log in again"),
        (KubeError(404, "", "404 page not found"), "install the CustomResourceDefinitions"),
        (KubeError(403, "Forbidden", "pods is\nforbidden"), "Forbidden: pods is forbidden"),
    ],
)
def test_refusals_are_one_line(error, words):
    assert words in explained(error)
    assert "\n" not in explained(error)
