"""`pdc run`: manifest to running processes. The composition of this package."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pdcluster_operator.desired.naming import ROUTER, pod_name
from pdcluster_operator.desired.pod import TLSPaths
from pdcluster_operator.errors import LocalError
from pdcluster_operator.local.machine import Machine, this_machine
from pdcluster_operator.local.manifest import LocalManifest, for_this_machine, notes, read_manifest
from pdcluster_operator.local.ports import PortKeeper, assign
from pdcluster_operator.local.report import Reporter
from pdcluster_operator.local.screen import Screen
from pdcluster_operator.local.supervisor import Supervisor
from pdcluster_operator.local.tls import write_certificates
from pdcluster_operator.plan.plan import Plan, plan
from pdcluster_operator.plan.site import LocalSite

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`port` 0: any. `start_limit`: seconds that a pod may load for. `program`: what runs the planned commands."""

    file: Path
    port: int = 0
    json: bool = False
    verbose: bool = False
    log_folder: Path | None = None
    api_key_file: Path | None = None
    start_limit: float = 600.0
    program: Sequence[str] = field(default=(sys.executable,))


def run(options: RunOptions) -> None:
    """Until SIGINT or SIGTERM. Raises OperatorError when it cannot start."""
    cluster, machine = read_manifest(options.file), this_machine()
    api_keys = _existing(options.api_key_file)
    folder = Path.cwd() if str(options.file) == "-" else options.file.resolve().parent
    manifest = for_this_machine(cluster, folder, machine, api_keys)
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), PortKeeper() as keeper, _certificates(manifest) as tls:
        planned = plan_here(manifest, machine, keeper, options.port, tls, api_keys)
        asyncio.run(_supervise(planned, options, notes(cluster, machine)))


@contextlib.contextmanager
def _certificates(manifest: LocalManifest) -> Iterator[dict[str, TLSPaths]]:
    """By role, in a private folder for as long as the context lasts; none unless the manifest asks for TLS."""
    if not manifest.wants_tls:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="pdc-") as private:
        yield write_certificates(manifest.cluster, Path(private))


def plan_here(
    manifest: LocalManifest,
    machine: Machine,
    keeper: PortKeeper,
    port: int,
    tls: Mapping[str, TLSPaths],
    api_key_file: str,
) -> Plan:
    cluster = manifest.cluster
    name = cluster.metadata.name
    workers = [
        pod_name(name, role_name, index)
        for role_name, role in cluster.spec.roles().items()
        for index in range(role.first_replicas)
    ]
    site = LocalSite(
        model_path=str(manifest.model_path),
        cores=machine.cores,
        ports=assign(keeper, workers, pod_name(name, ROUTER, 0), port),
        profile_folder=str(manifest.folder),
        api_key_file=api_key_file,
        tls=tls,
        has_rdma=machine.has_rdma,
    )
    return plan(cluster, site)


async def _supervise(planned: Plan, options: RunOptions, remarks: Sequence[str]) -> None:
    screen = Screen(options.log_folder, options.verbose)
    loop = asyncio.get_running_loop()
    reporter = Reporter(options.json)
    supervisor = Supervisor(planned, options.program, screen, reporter, options.start_limit)
    for number in STOPS:
        loop.add_signal_handler(number, supervisor.stop)
    try:
        for remark in remarks:
            screen.say(remark)
        await supervisor.run()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # The loop's end would give them their deadly meaning back.
        reporter.close()
        screen.close()


def _existing(file: Path | None) -> str:
    if file is None:
        return ""
    if not file.is_file():
        raise LocalError(f"--api-key-file: {file} is not a file")
    return str(file.resolve())
