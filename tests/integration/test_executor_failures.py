"""What goes wrong around an executor process, and that each of it ends in exactly one report."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from kv_executors import DEADLINE, SimulatedExecutor, admission, plan, transfer

from pdcluster_worker.core.plan import StepPlan
from pdcluster_worker.ipc.messages import ToExecutor
from pdcluster_worker.kv.protocol import KVProtocol

SLOW = '{"verification": "full", "prefill_tokens_per_second": 100}'
LOCAL, REMOTE = [0, 1, 2, 3], [10, 11, 12, 13]
TOKENS = list(range(1, 65))

MakeExecutor = Callable[..., SimulatedExecutor]


def first_half_sent(
    make: MakeExecutor, protocol: KVProtocol, lifetime: float
) -> tuple[SimulatedExecutor, SimulatedExecutor]:
    """Prefill and decode; half of the prompt has been computed and has arrived."""
    prefill, decode = make(protocol), make(protocol)
    prefill.add_peer("decode", decode)
    spec = transfer(1, 0, LOCAL, REMOTE, tokens=64, lifetime=lifetime)
    prefill.send(ToExecutor(plans=(plan(1, [(0, 0, 32, False)], [admission(0, TOKENS, LOCAL)], [spec]),)))
    prefill.step(1)
    decode.wait(lambda: bool(decode.read_memory(3)[1, REMOTE[1]].any()))
    return prefill, decode


def test_nothing_is_posted_after_the_lifetime_of_a_stopped_sender(make_executor: MakeExecutor) -> None:
    prefill, decode = first_half_sent(make_executor, KVProtocol.TCP, lifetime=2.0)
    prefill.signal(signal.SIGSTOP)
    prefill.send(ToExecutor(plans=(plan(2, [(0, 32, 32, True)]),)))
    threading.Event().wait(2.5)
    prefill.signal(signal.SIGCONT)
    prefill.step(2)
    report = prefill.transfer(1)
    assert (report.ok, report.reason) == (False, "its lifetime is over")
    for layer in range(4):
        assert not decode.read_memory(layer)[:, REMOTE[2:]].any()


def test_a_transfer_that_waits_past_its_lifetime_is_reported_without_a_step(make_executor: MakeExecutor) -> None:
    prefill, _ = first_half_sent(make_executor, KVProtocol.IPC, lifetime=1.0)
    report = prefill.transfer(1)
    assert (report.ok, report.reason) == (False, "its lifetime is over")
    assert report.bytes == 2 * 2 * 4 * prefill.ready.metadata.block_bytes


def test_a_lifetime_counts_from_the_engines_message_not_from_its_reading(make_executor: MakeExecutor) -> None:
    prefill, decode = make_executor(), make_executor()
    prefill.add_peer("decode", decode)
    spec = transfer(1, 0, LOCAL, REMOTE, tokens=64, lifetime=1.0)
    prefill.signal(signal.SIGSTOP)
    prefill.send(ToExecutor(plans=(plan(1, [(0, 0, 64, True)], [admission(0, TOKENS, LOCAL)], [spec]),)))
    threading.Event().wait(1.5)
    prefill.signal(signal.SIGCONT)
    assert prefill.transfer(1).reason == "its lifetime is over"
    assert not decode.read_memory(0).any()


def test_a_cancelled_transfer_posts_nothing_more(make_executor: MakeExecutor) -> None:
    prefill, decode = first_half_sent(make_executor, KVProtocol.IPC, lifetime=20.0)
    prefill.send(ToExecutor(cancel_transfers=(1, 77)))
    report = prefill.transfer(1)
    assert (report.ok, report.reason) == (False, "cancelled")
    prefill.send(ToExecutor(plans=(plan(2, [(0, 32, 32, True)]),)))
    prefill.step(2)
    assert not decode.read_memory(0)[:, REMOTE[2:]].any()


def test_a_transfer_whose_slot_is_dropped_early_fails(make_executor: MakeExecutor) -> None:
    prefill, _ = first_half_sent(make_executor, KVProtocol.IPC, lifetime=20.0)
    prefill.send(ToExecutor(plans=(plan(2, drop=[0]),)))
    assert "left its slot" in prefill.transfer(1).reason


@pytest.mark.parametrize("protocol", [KVProtocol.IPC, KVProtocol.TCP])
def test_a_killed_peer_fails_the_transfer_and_no_other(make_executor: MakeExecutor, protocol: KVProtocol) -> None:
    prefill, decode = first_half_sent(make_executor, protocol, lifetime=20.0)
    decode.signal(signal.SIGKILL)
    assert decode.wait_exit() == "the executor process was killed by SIGKILL"
    prefill.send(ToExecutor(plans=(plan(2, [(0, 32, 32, True)]),)))
    assert "write" in prefill.transfer(1).reason
    other = make_executor(protocol)
    prefill.send(ToExecutor(remove_peers=("decode",)))
    prefill.add_peer("other", other)
    prefill.send(ToExecutor(transfers=(transfer(2, 0, LOCAL, REMOTE, tokens=64, computed=64, peer="other"),)))
    assert prefill.transfer(2).ok


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (transfer(1, -1, LOCAL, REMOTE, 64, computed=64, peer="nobody"), "peer nobody is not known"),
        (transfer(1, -1, LOCAL, REMOTE[:3], 64, computed=64), "4 local and 3 remote blocks"),
        (transfer(1, -1, LOCAL, REMOTE, 64, computed=10), "no slot to compute"),
        (transfer(1, -1, LOCAL, [10, 11, 12, 64], 64, computed=64), "a remote block is outside"),
        (transfer(1, -1, [0, 1, 2, -1], REMOTE, 64, computed=64), "a local block is outside"),
    ],
)
def test_an_impossible_transfer_is_reported_not_fatal(make_executor: MakeExecutor, spec: object, reason: str) -> None:
    prefill, decode = make_executor(), make_executor()
    prefill.add_peer("decode", decode)
    prefill.send(ToExecutor(transfers=(spec,)))  # type: ignore[arg-type]
    assert reason in prefill.transfer(1).reason
    prefill.send(ToExecutor(plans=(plan(1),)))
    prefill.step(1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (plan(1, [(5, 0, 1, True)]), "holds no request"),
        (plan(1, drop=[3]), "slot 3 holds no request"),
        (plan(1, admissions=[admission(0, TOKENS, [64])]), "a block is outside"),
        (plan(1, [(0, 0, 65, True)], [admission(0, TOKENS, [0, 1, 2, 3, 4])]), "tokens are not known"),
    ],
)
def test_a_plan_that_cannot_be_is_fatal(make_executor: MakeExecutor, bad: StepPlan, reason: str) -> None:
    executor = make_executor()
    assert executor.ready
    executor.send(ToExecutor(plans=(bad,)))
    assert reason in executor.wait_exit()
    assert reason in executor.fatal
    assert executor.process.alive is False


def test_kv_that_is_not_that_of_the_tokens_is_noticed(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    executor.send(ToExecutor(plans=(plan(1, [(0, 64, 1, True)], [admission(0, [*TOKENS, 5], [0, 1, 2, 3, 4])]),)))
    assert "is not that of token" in executor.wait_exit()


def test_an_unreadable_profile_is_fatal_and_names_the_field(make_executor: MakeExecutor) -> None:
    executor = make_executor(profile='{"layers": 0}')
    assert "$.layers" in executor.wait_exit()


def test_plans_queue_behind_a_step_and_run_in_order(make_executor: MakeExecutor) -> None:
    executor = make_executor(profile=SLOW)
    executor.send(ToExecutor(plans=(plan(1, [(0, 0, 64, True)], [admission(0, TOKENS, [0, 1, 2, 3, 4])]),)))
    for number in range(2, 6):
        executor.send(ToExecutor(plans=(plan(number, [(0, 62 + number, 1, True)]),)))
    assert executor.step(5).slots == [0]
    assert list(executor.steps) == [1, 2, 3, 4, 5]
    assert executor.loading == sorted(executor.loading)
    assert executor.loading[-1] == 1.0


def test_an_orderly_end_while_loading(make_executor: MakeExecutor) -> None:
    executor = make_executor(profile='{"load_seconds": 5}')
    executor.wait(lambda: bool(executor.loading))
    executor.send(ToExecutor(shutdown=True))
    assert executor.wait_exit() == "the executor process ended with status 0"


def test_fences_are_answered(make_executor: MakeExecutor) -> None:
    executor = make_executor(KVProtocol.TCP)
    assert executor.ready
    executor.send(ToExecutor(fences=(1, 2)))
    executor.send(ToExecutor(fences=(3,)))
    executor.wait(lambda: executor.fences == {1, 2, 3})


ENGINE = """
import sys, time
from kv_executors import SimulatedExecutor
from pdcluster_worker.kv.protocol import KVProtocol
executor = SimulatedExecutor(KVProtocol.IPC)
executor.ready
print(executor.process.pid, executor.folder, flush=True)
sys.stdin.read()
"""


def test_an_executor_dies_with_its_engine() -> None:
    support = str(Path(__file__).parents[1] / "support")
    environment = dict(os.environ, PYTHONPATH=support)
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    with engine:
        assert engine.stdout is not None
        pid, folder = engine.stdout.readline().split()
        executor = psutil.Process(int(pid))
        engine.kill()
        executor.wait(DEADLINE)
        assert Path(folder).exists(), "the next start removes it"
    from pdcluster_worker.ipc.runtime import make_socket_folder

    make_socket_folder().rmdir()
    assert not Path(folder).exists()
