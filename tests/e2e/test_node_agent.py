"""The node whose pods are processes: what the end-to-end tests take for granted of a kubelet."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Manifest
from kubelet_agent import Agent

pytestmark = pytest.mark.anyio

SERVER = """
import http.server, json, os, pathlib, signal, sys, threading
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/read/"):
            body = pathlib.Path(self.path.removeprefix("/read")).read_bytes()
        else:
            body = json.dumps(dict(os.environ)).encode()
        broken = pathlib.Path("/scratch/broken").exists() and self.path == "/live"
        self.send_response(500 if broken else 200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
pathlib.Path("/scratch/started").write_text("yes")
http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler).serve_forever()
"""


def pod(agent_node: str, **container: Any) -> Manifest:
    main = {
        "name": "main",
        "image": "none",
        "command": [sys.executable, "-c", SERVER, "$(POD_IP)"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "GREETING", "value": "hello from $(POD_IP)"},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
        "resources": {"limits": {"cpu": "1500m"}},
        "ports": [{"name": "http", "containerPort": 8080}],
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "settings", "mountPath": "/etc/pdcluster/settings", "readOnly": True},
        ],
        "startupProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1, "failureThreshold": 20},
        **container,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "labels": {"app": "pod"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": agent_node},
            "terminationGracePeriodSeconds": 10,
            "containers": [main],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "settings"}},
            ],
        },
    }


def settings(value: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"value": value}}


def is_ready(found: Manifest | None) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def restarted(found: Manifest | None) -> bool:
    statuses = (found or {}).get("status", {}).get("containerStatuses", [{}])
    return statuses[0].get("restartCount", 0) > 0 and is_ready(found)


async def fetch(address: str, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(address, 8080)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


@pytest.fixture
def host(admin: Client) -> str:
    return f"host-{admin.namespace}"


async def started(admin: Client, manifest: Manifest) -> Manifest:
    await admin.create(settings("one"))
    await admin.create(manifest)
    found = await admin.wait("v1/Pod", "pod", is_ready)
    assert found is not None
    return found


async def test_a_pod_runs_with_its_volumes_and_environment(admin: Client, agent: Agent, host: str) -> None:
    address = (await started(admin, pod(host)))["status"]["podIP"]

    told = (await fetch(address, "/")).decode()
    assert f'"GREETING": "hello from {address}"' in told
    assert '"CPUS": "2"' in told
    assert await fetch(address, "/read/etc/pdcluster/settings/value") == b"one"
    assert (await fetch(address, "/read/var/run/secrets/kubernetes.io/serviceaccount/token")).count(b".") == 2
    assert not Path("/etc/pdcluster").exists(), "a mount point was left on this host"


async def test_a_configuration_that_changes_reaches_the_running_pod(admin: Client, agent: Agent, host: str) -> None:
    address = (await started(admin, pod(host)))["status"]["podIP"]
    await admin.apply(settings("two"))

    async with asyncio.timeout(20):
        while await fetch(address, "/read/etc/pdcluster/settings/value") != b"two":
            await asyncio.sleep(0.2)


async def test_a_pod_waits_for_what_it_mounts(admin: Client, agent: Agent, host: str) -> None:
    await admin.create(pod(host))
    await admin.wait("v1/Pod", "pod", lambda found: "containerStatuses" in (found or {}).get("status", {}))
    assert agent.pods[admin.namespace, "pod"].process_id("main") is None

    await admin.create(settings("late"))
    await admin.wait("v1/Pod", "pod", is_ready)


async def test_a_killed_process_is_started_again(admin: Client, agent: Agent, host: str) -> None:
    await started(admin, pod(host))
    process = agent.pods[admin.namespace, "pod"].process_id("main")
    assert process is not None
    os.kill(process, signal.SIGKILL)

    found = await admin.wait("v1/Pod", "pod", restarted)
    assert found is not None
    assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137


async def test_a_failing_liveness_probe_restarts_the_container(admin: Client, agent: Agent, host: str) -> None:
    live = {"httpGet": {"port": 8080, "path": "/live"}, "periodSeconds": 1, "failureThreshold": 1}
    clean = ["/bin/sh", "-c", 'if [ -e /scratch/started ]; then rm -f /scratch/broken; fi; exec "$0" "$@"']
    command = [*clean, sys.executable, "-c", SERVER, "$(POD_IP)"]
    await started(admin, pod(host, command=command, livenessProbe=live))

    life = agent.pods[admin.namespace, "pod"]
    process = life.process_id("main")
    Path(f"/proc/{process}/root/scratch/broken").touch()

    await admin.wait("v1/Pod", "pod", restarted)


async def test_readiness_follows_its_probe(admin: Client, agent: Agent, host: str) -> None:
    probe = {"exec": {"command": ["test", "-e", "/scratch/broken"]}, "periodSeconds": 1, "failureThreshold": 1}
    await admin.create(settings("one"))
    await admin.create(pod(host, readinessProbe=probe))
    life = await running(admin, agent)
    assert not is_ready(await admin.get("v1/Pod", "pod"))

    marker = Path(f"/proc/{life}/root/scratch/broken")
    marker.touch()
    await admin.wait("v1/Pod", "pod", is_ready)
    marker.unlink()
    await admin.wait("v1/Pod", "pod", lambda found: not is_ready(found))


async def running(admin: Client, agent: Agent) -> int:
    def holds(found: Manifest | None) -> bool:
        statuses = (found or {}).get("status", {}).get("containerStatuses", [{}])
        return bool(statuses[0].get("started"))

    await admin.wait("v1/Pod", "pod", holds)
    process = agent.pods[admin.namespace, "pod"].process_id("main")
    assert process is not None
    return process


async def test_a_deleted_pod_gets_its_hook_and_its_signal(
    admin: Client, agent: Agent, host: str, tmp_path: Path
) -> None:
    manifest = pod(host, lifecycle={"preStop": {"exec": {"command": ["touch", "/witness/hook"]}}})
    (tmp_path / "witness").mkdir()
    manifest["spec"]["containers"][0]["volumeMounts"].append({"name": "witness", "mountPath": "/witness"})
    manifest["spec"]["volumes"].append({"name": "witness", "hostPath": {"path": str(tmp_path / "witness")}})
    await started(admin, manifest)
    process = agent.pods[admin.namespace, "pod"].process_id("main")

    await admin.delete("v1/Pod", "pod")
    await admin.wait("v1/Pod", "pod", lambda found: found is None)

    assert (tmp_path / "witness" / "hook").exists()
    assert not Path(f"/proc/{process}").exists()


async def test_a_forced_deletion_leaves_no_process(admin: Client, agent: Agent, host: str) -> None:
    await started(admin, pod(host))
    process = agent.pods[admin.namespace, "pod"].process_id("main")
    await admin.delete("v1/Pod", "pod", gracePeriodSeconds=0)

    async with asyncio.timeout(10):
        while Path(f"/proc/{process}").exists():
            await asyncio.sleep(0.05)
