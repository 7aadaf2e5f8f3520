"""A manifest file, read for this machine: what only a cluster can do is refused, with its path."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.parse import parse_text
from pdcluster_operator.errors import LocalError, Problem, SpecError
from pdcluster_operator.local.machine import Machine

LARGEST_MANIFEST = 4 << 20


@dataclass(frozen=True, slots=True)
class LocalManifest:
    """`folder`: what relative paths start from. `wants_tls`: the manifest says MTLS itself."""

    cluster: PDCluster
    folder: Path
    model_path: Path
    wants_tls: bool


def read_manifest(file: Path) -> PDCluster:
    """The PDCluster in `file`, `-` being standard input. Raises LocalError or SpecError."""
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from error
    if len(data) > LARGEST_MANIFEST:
        raise LocalError(f"{file} has {len(data)} bytes; a manifest has at most {LARGEST_MANIFEST}")
    try:
        return parse_text(data.decode())
    except UnicodeDecodeError as error:
        raise LocalError(f"{file} is not UTF-8 text") from error


def for_this_machine(cluster: PDCluster, folder: Path, machine: Machine, api_key_file: str = "") -> LocalManifest:
    """Raises SpecError naming every field that cannot be had here."""
    problems = [*_of_source(cluster, folder), *_of_devices(cluster, machine), *_of_secrets(cluster, api_key_file)]
    if problems:
        raise SpecError(problems)
    source = cluster.spec.model.source.host_path
    assert source is not None
    return LocalManifest(cluster, folder, _resolve(folder, source.path), _wants_tls(cluster))


def notes(cluster: PDCluster, machine: Machine) -> list[str]:
    """What is done otherwise than on a cluster, for people."""
    spec, found = cluster.spec, []
    if spec.prefill is not None and spec.transport.kv.protocol == "RDMA" and not machine.has_rdma:
        found.append("spec.transport.kv.protocol is RDMA, this machine has no such device: IPC is used")
    if spec.router.replicas > 1:
        found.append(f"spec.router.replicas is {spec.router.replicas}: one router is started")
    for name, role in spec.roles().items():
        if role.pod_template is not None:
            found.append(f"spec.{name}.podTemplate has no effect without a cluster")
        if role.scaling.mode != "Static":
            found.append(f"spec.{name}.scaling is {role.scaling.mode}: minReplicas pods are started")
    return found


def _resolve(folder: Path, path: str) -> Path:
    return (folder / Path(path).expanduser()).resolve()


def _of_source(cluster: PDCluster, folder: Path) -> list[Problem]:
    source = cluster.spec.model.source
    if source.host_path is None:
        return [Problem(f"spec.model.source.{source.kind}", "needs a cluster; here only hostPath is possible")]
    path = _resolve(folder, source.host_path.path)
    if not path.exists():
        return [Problem("spec.model.source.hostPath.path", f"{path} does not exist")]
    return []


def _of_devices(cluster: PDCluster, machine: Machine) -> list[Problem]:
    wanted = {name: role.gpu.count * role.first_replicas for name, role in cluster.spec.roles().items()}
    if sum(wanted.values()) <= machine.gpus:
        return []
    return [
        Problem(
            f"spec.{name}.gpu.count",
            f"all roles need {sum(wanted.values())} GPUs, this machine has {machine.gpus}; 0 makes CPU workers",
        )
        for name, count in wanted.items()
        if count
    ]


def _of_secrets(cluster: PDCluster, api_key_file: str) -> list[Problem]:
    spec, problems = cluster.spec, []
    if spec.router.api_key_secret_ref is not None and not api_key_file:
        problems.append(
            Problem("spec.router.apiKeySecretRef", "needs a cluster; here give the keys with --api-key-file")
        )
    for field, value in (("secretName", spec.tls.secret_name), ("issuerRef", spec.tls.issuer_ref)):
        if value is not None:
            problems.append(
                Problem(f"spec.tls.{field}", "needs a cluster; leave it out for certificates made on the spot")
            )
    return problems


def _wants_tls(cluster: PDCluster) -> bool:
    return "tls" in cluster.spec.model_fields_set and cluster.spec.tls.mode == "MTLS"
