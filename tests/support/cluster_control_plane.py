"""A real control plane on loopback for one test session: etcd, API server, controller manager, scheduler and KWOK.

`running` is the only way in: it yields a `ControlPlane` that is ready for pods, and leaves nothing behind. Custom
resource definitions are installed before the controller manager starts, since its REST mapper learns of new kinds only
every 30 s and the horizontal autoscaler needs it.
"""

import contextlib
import json
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cluster_binaries
from cluster_certificates import Authority, Pair, signing_pair
from cluster_process import Program, Reservation
from side_by_side import loopback

HOST = "127.0.0.1"
CONTEXT = "pdcluster-test"
TRUST = "ca.crt"
ADMIN_TOKEN = "test-admin"
TOKENS = {
    ADMIN_TOKEN: ("test-admin", "system:masters"),
    "test-controller-manager": ("system:kube-controller-manager", "system:masters"),
    "test-scheduler": ("system:kube-scheduler", ""),
    "test-kwok": ("kwok-admin", "system:masters"),
}
"""Bearer token to user and group. The controller manager works under one identity, so it needs all rights."""

FAKE_NODE = "kwok.x-k8s.io/node=fake"
"""The annotation of the nodes that KWOK manages; it leaves all others alone."""


@dataclass
class ControlPlane:
    """The addresses and files of a running control plane, and its programs by name."""

    folder: Path
    server: str
    kubeconfig: Path
    programs: dict[str, Program] = field(default_factory=dict)
    etcd: str = ""
    """Where the API server keeps its objects; empty when it is not known."""

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator with `text` on its standard input; the caller looks at the exit status."""
        program = cluster_binaries.find("kubectl")
        return self._run([str(program), *arguments], text)

    def helm(self, *arguments: str, program: str = "helm") -> subprocess.CompletedProcess[str]:
        """Runs Helm 3 as the administrator, or Helm 4 as the `program` helm4."""
        return self._run([str(cluster_binaries.find(program)), *arguments], None)

    def install(self, manifests: Sequence[Path]) -> None:
        """Applies files; raises RuntimeError with the server's words."""
        for path in manifests:
            applied = self.kubectl("apply", "--server-side", "-f", str(path))
            if applied.returncode:
                raise RuntimeError(f"{path}: {applied.stderr}")

    def _run(self, command: Sequence[str], text: str | None) -> subprocess.CompletedProcess[str]:
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=110, check=False
        )


@contextlib.contextmanager
def running(folder: Path, definitions: Sequence[Path] = (), managed: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """Starts all of it in `folder` and ends it; `definitions` are manifests that are applied first.

    `managed` are more flags of the controller manager, which win over the usual ones.
    """
    with contextlib.ExitStack() as stack:
        plane = _servers(folder, stack)
        plane.install(definitions)
        _controllers(plane, stack, managed)
        yield plane


def _servers(folder: Path, stack: contextlib.ExitStack) -> ControlPlane:
    """etcd and the API server."""
    client, peer, secure = (_port(stack) for _ in range(3))
    authority = _write_credentials(folder)
    etcd = _start("etcd", folder, stack, _etcd_flags(folder, client, peer))
    etcd.wait_ready(f"http://{HOST}:{client}/health")
    server = _start("kube-apiserver", folder, stack, _server_flags(folder, client, secure))
    url = f"https://{HOST}:{secure}"
    server.wait_ready(f"{url}/readyz", ssl.create_default_context(cadata=authority.certificate.decode()))
    kubeconfig = write_kubeconfig(folder / "admin.kubeconfig", url, folder / TRUST, ADMIN_TOKEN)
    plane = ControlPlane(folder, url, kubeconfig, etcd=f"http://{HOST}:{client}")
    plane.programs.update({"etcd": etcd, "kube-apiserver": server})
    return plane


@contextlib.contextmanager
def other_controllers(plane: ControlPlane, managed: Sequence[str]) -> Iterator[None]:
    """Another controller manager in place of the one that runs, with more flags, for as long as this lasts."""
    plane.programs["kube-controller-manager"].close()
    with contextlib.ExitStack() as stack:
        name = "kube-controller-manager"
        flags = [*_controller_flags(plane.folder), *managed]
        plane.programs[name], address = _controller(plane, stack, name, "test-controller-manager", flags)
        plane.programs[name].wait_ready(address, ssl._create_unverified_context())
        yield


def _controller(
    plane: ControlPlane, stack: contextlib.ExitStack, name: str, user: str, flags: Sequence[str]
) -> tuple[Program, str]:
    """A program of Kubernetes that is a client of the API server, and where it tells its health."""
    config = write_kubeconfig(plane.folder / f"{name}.kubeconfig", plane.server, plane.folder / TRUST, user)
    port = _port(stack)
    usual = [f"--kubeconfig={config}", f"--bind-address={HOST}", f"--secure-port={port}", "--leader-elect=false"]
    return _start(name, plane.folder, stack, [*usual, *flags]), f"https://{HOST}:{port}/healthz"


def _controllers(plane: ControlPlane, stack: contextlib.ExitStack, managed: Sequence[str]) -> None:
    """The programs that act on what the API server holds; they start side by side."""
    unchecked = ssl._create_unverified_context()  # they serve their health under certificates of their own making
    addresses = {}
    for name, user, flags in (
        ("kube-controller-manager", "test-controller-manager", [*_controller_flags(plane.folder), *managed]),
        ("kube-scheduler", "test-scheduler", ["--kube-api-qps=1000", "--kube-api-burst=1000"]),
    ):
        plane.programs[name], addresses[name] = _controller(plane, stack, name, user, flags)
    config = write_kubeconfig(plane.folder / "kwok.kubeconfig", plane.server, plane.folder / TRUST, "test-kwok")
    plane.programs["kwok"], addresses["kwok"] = start_kwok(plane.folder, config, stack)
    for name, address in addresses.items():
        plane.programs[name].wait_ready(address, unchecked)


def start_kwok(folder: Path, config: Path, stack: contextlib.ExitStack) -> tuple[Program, str]:
    """KWOK, and where it tells its health. Its pods get addresses that a fake worker can listen on."""
    port = _port(stack)
    flags = [
        f"--kubeconfig={config}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={FAKE_NODE}",
        f"--cidr={loopback()}",
        f"--node-ip={HOST}",
        f"--server-address={HOST}:{port}",
        "--node-lease-duration-seconds=40",
    ]
    return _start("kwok", folder, stack, flags), f"http://{HOST}:{port}/healthz"


def write_kubeconfig(path: Path, server: str, trust: Path, token: str) -> Path:
    """A kubeconfig with one user; JSON is YAML."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": CONTEXT,
                "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
                "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority": str(trust)}}],
                "users": [{"name": CONTEXT, "user": {"token": token}}],
            }
        )
    )
    path.chmod(0o600)
    return path


def _port(stack: contextlib.ExitStack) -> int:
    reservation = stack.enter_context(contextlib.closing(Reservation()))
    return reservation.port


def _start(name: str, folder: Path, stack: contextlib.ExitStack, flags: Sequence[str]) -> Program:
    return stack.enter_context(contextlib.closing(Program(name, [str(cluster_binaries.find(name)), *flags], folder)))


def _write_credentials(folder: Path) -> Authority:
    """Everything the flags below name; returns the authority of the serving certificate."""
    serving, front = Authority("test-serving"), Authority("test-front-proxy")
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    private, public = signing_pair()
    _write_pair(folder / "apiserver", serving.issue("kube-apiserver", dns=names, addresses=[HOST]))
    _write_pair(folder / "front-proxy", front.issue("front-proxy-client"))
    (folder / TRUST).write_bytes(serving.certificate)
    (folder / "front-proxy-ca.crt").write_bytes(front.certificate)
    (folder / "service-account.key").write_bytes(private)
    (folder / "service-account.pub").write_bytes(public)
    rows = [f'{token},{user},{user},"{group}"' for token, (user, group) in TOKENS.items()]
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    (folder / "audit.yaml").write_text(
        json.dumps(
            {
                "apiVersion": "audit.k8s.io/v1",
                "kind": "Policy",
                "omitStages": ["RequestReceived", "ResponseStarted"],
                "rules": [{"level": "Metadata"}],
            }
        )
    )
    return serving


def _write_pair(stem: Path, pair: Pair) -> None:
    stem.with_suffix(".crt").write_bytes(pair.certificate)
    stem.with_suffix(".key").write_bytes(pair.key)


def _etcd_flags(folder: Path, client: int, peer: int) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://{HOST}:{client}",
        f"--advertise-client-urls=http://{HOST}:{client}",
        f"--listen-peer-urls=http://{HOST}:{peer}",
        f"--initial-advertise-peer-urls=http://{HOST}:{peer}",
        f"--initial-cluster=default=http://{HOST}:{peer}",
        "--unsafe-no-fsync",
    ]


def _server_flags(folder: Path, etcd: int, secure: int) -> list[str]:
    return [
        f"--etcd-servers=http://{HOST}:{etcd}",
        f"--bind-address={HOST}",
        f"--secure-port={secure}",
        f"--cert-dir={folder}",
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'service-account.pub'}",
        f"--service-account-signing-key-file={folder / 'service-account.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={folder / 'audit.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--audit-log-maxsize=4000",
        # The front proxy: what lets an adapter outside the cluster trust the API server.
        f"--requestheader-client-ca-file={folder / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={folder / 'front-proxy.crt'}",
        f"--proxy-client-key-file={folder / 'front-proxy.key'}",
    ]


def _controller_flags(folder: Path) -> list[str]:
    return [
        f"--service-account-private-key-file={folder / 'service-account.key'}",
        f"--root-ca-file={folder / TRUST}",
        "--horizontal-pod-autoscaler-sync-period=1s",
        "--horizontal-pod-autoscaler-downscale-stabilization=1s",
        "--concurrent-statefulset-syncs=10",
        "--kube-api-qps=1000",
        "--kube-api-burst=1000",
    ]
