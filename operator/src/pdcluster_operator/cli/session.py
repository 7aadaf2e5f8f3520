"""A user's way to a cluster: which kubeconfig, context and namespace, and errors that name what a person can do."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import yaml
from kubernetes.aio import config as kubernetes_config

from pdcluster_operator.cli.user_api import UserApi
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.kube import KubeError, connection
from pdcluster_operator.resources import PD_CLUSTER, Manifest

Result = TypeVar("Result")

MOUNTED_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
IN_A_POD = "KUBERNETES_SERVICE_HOST"


class ClusterError(OperatorError):
    """A command about a cluster cannot do what it was asked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the options say; None: what the environment has."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    api: UserApi
    namespace: str

    async def cluster(self, name: str | None) -> Manifest:
        """The PDCluster of that name, or the only one. Raises ClusterError."""
        if name:
            found = await self.api.get(PD_CLUSTER, self.namespace, name)
            if found is None:
                raise ClusterError(f"there is no PDCluster {name} in namespace {self.namespace}")
            return found
        every = await self.api.list(PD_CLUSTER, self.namespace)
        if len(every) == 1:
            return every[0]
        if not every:
            raise ClusterError(f"there is no PDCluster in namespace {self.namespace}")
        names = ", ".join(sorted(entry["metadata"]["name"] for entry in every))
        raise ClusterError(f"say which PDCluster of namespace {self.namespace}: {names}")


def in_session(place: Place, work: Callable[[Session], Awaitable[Result]]) -> Result:
    """What `work` returns. Raises OperatorError only, with a message that a person can act on."""
    try:
        return asyncio.run(_work(place, work))
    except KubeError as error:
        raise ClusterError(explained(error)) from error


async def _work(place: Place, work: Callable[[Session], Awaitable[Result]]) -> Result:
    kubeconfig = find_kubeconfig(place, os.environ)
    namespace = _default_namespace(kubeconfig, place.context)
    try:
        opening = connection(kubeconfig, place.context)
        opened = await opening.__aenter__()
    except (kubernetes_config.ConfigException, OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise ClusterError(f"the kubeconfig {kubeconfig or 'of this pod'} cannot be used: {error}") from error
    try:
        return await work(Session(UserApi(opened), place.namespace or namespace))
    finally:
        await opening.__aexit__(None, None, None)


def find_kubeconfig(place: Place, environment: "os._Environ[str] | dict[str, str]") -> str | None:
    """The file, or several of them as in $KUBECONFIG; None for a pod's service account. Raises ClusterError."""
    if place.kubeconfig:
        if not Path(place.kubeconfig).is_file():
            raise ClusterError(f"there is no kubeconfig {place.kubeconfig}")
        return place.kubeconfig
    named = environment.get("KUBECONFIG") or str(Path(environment.get("HOME", "/")) / ".kube" / "config")
    if any(Path(part).is_file() for part in named.split(os.pathsep) if part):
        return named
    if environment.get(IN_A_POD) and not place.context:
        return None
    raise ClusterError(f"there is no kubeconfig {named}: name one with --kubeconfig or $KUBECONFIG")


def _default_namespace(kubeconfig: str | None, context: str | None) -> str:
    if kubeconfig is None:
        return MOUNTED_NAMESPACE.read_text().strip() if MOUNTED_NAMESPACE.exists() else "default"
    try:
        contexts, current = kubernetes_config.list_kube_config_contexts(kubeconfig)
    except (
        kubernetes_config.ConfigException,
        OSError,
        yaml.YAMLError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise ClusterError(f"the kubeconfig {kubeconfig} cannot be used: {error}") from error
    chosen = next((entry for entry in contexts if entry["name"] == context), None) if context else current
    if chosen is None:
        names = ", ".join(sorted(entry["name"] for entry in contexts))
        raise ClusterError(f"the kubeconfig {kubeconfig} has no context {context}; it has {names}")
    return str(chosen["context"].get("namespace") or "default")


def explained(error: KubeError) -> str:
    """A refusal in one line, with what to do about the usual ones."""
    if not error.status:
        return f"the API server does not answer: {error.message}"
    if error.status == HTTPStatus.UNAUTHORIZED:
        return "the API server does not know these credentials: log in again"
    if error.is_missing and not error.reason:
        return (
            "this cluster does not know PDClusters: install the CustomResourceDefinitions (`pdc preflight` says more)"
        )
    return " ".join(f"{error.reason or error.status}: {error.message}".split())
