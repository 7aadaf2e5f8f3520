"""A stream goes on, with the tokens that it would have had, whatever dies behind the router."""

import asyncio
import json

import httpx
import pytest
from router_fake_worker import FakeWorker, Script, expected_tokens
from router_harness import RouterHarness

from pdcluster_worker.core.effects import FailedNote
from pdcluster_worker.core.wire import FailureCode, Role

P, D, M = Role.PREFILL, Role.DECODE, Role.MIXED
PROMPT = [71, 72, 73, 74]
COUNT = 40


class OpenStream:
    """One streamed completion, read line by line; `seed` as the workers saw it gives the expected tokens."""

    def __init__(self, harness: RouterHarness, **fields: object) -> None:
        self._harness = harness
        self._client = harness.client()
        body = {
            "model": "fake",
            "prompt": PROMPT,
            "max_tokens": COUNT,
            "seed": 7,
            "stream": True,
            "return_token_ids": True,
            "return_stages": True,
        } | fields
        self._context = self._client.stream("POST", "/v1/completions", json=body)
        self.tokens: list[int] = []
        self.reason = ""
        self.error: dict[str, object] | None = None
        self.last: dict[str, object] = {}

    def __enter__(self) -> "OpenStream":
        self.response = self._context.__enter__()
        self._lines = self.response.iter_lines()
        return self

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)
        self._client.close()

    def read(self, count: int | None = None) -> list[int]:
        """Until so many tokens are here, or to the end."""
        for line in self._lines:
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                self.error = event["error"]
                continue
            self.last = event
            for choice in event["choices"]:
                self.tokens += choice["token_ids"]
                self.reason = choice["finish_reason"] or self.reason
            if count is not None and len(self.tokens) >= count:
                break
        return self.tokens

    def expected(self) -> list[int]:
        seeds = {request.sampling.seed for worker in self._harness.workers for request in worker.submitted}
        (seed,) = seeds
        return expected_tokens(PROMPT, seed, COUNT)


def harness(*roles: Role, pace: float = 0.01, **settings: object) -> RouterHarness:
    return RouterHarness(*roles, script=Script(pace=pace), **settings)


def restart(h: RouterHarness, worker: FakeWorker) -> None:
    h.call(worker.kill())
    h.call(worker.start())


def finish(h: RouterHarness, stream: OpenStream) -> None:
    assert stream.read() == stream.expected()
    assert stream.reason == "length"
    assert stream.error is None
    h.wait(lambda: not h.leaks())


@pytest.mark.parametrize("roles", [(M,), (P, D), (P, P, D, D)], ids=["mixed", "1P1D", "2P2D"])
def test_undisturbed(roles: tuple[Role, ...]) -> None:
    with harness(*roles) as h, OpenStream(h) as stream:
        finish(h, stream)


def test_a_mixed_worker_dies_in_mid_stream() -> None:
    with harness(M, M) as h, OpenStream(h) as stream:
        stream.read(5)
        holder = next(worker for worker in h.workers if worker.held)
        h.call(holder.kill())
        finish(h, stream)


def test_the_only_worker_dies_and_comes_back() -> None:
    with harness(M) as h, OpenStream(h) as stream:
        stream.read(5)
        restart(h, h.workers[0])
        finish(h, stream)


def test_the_decode_worker_dies_in_mid_stream() -> None:
    with harness(P, D, D) as h, OpenStream(h) as stream:
        stream.read(5)
        holder = next(worker for worker in h.named(D) if worker.held)
        h.call(holder.kill())
        finish(h, stream)
        report = stream.last["pdcluster"]
        assert report["resubmissions"] == 1


def test_the_prefill_worker_dies_before_the_first_token() -> None:
    with harness(P, P, D) as h:
        h.script.hold = asyncio.Event()
        client = h.client()
        future = h.loop.run_in_executor(None, lambda: OpenStream(h).__enter__())
        h.wait(lambda: any(worker.held for worker in h.named(P)))
        holder = next(worker for worker in h.named(P) if worker.held)
        h.call(holder.kill())
        h.loop.call_soon_threadsafe(h.script.hold.set)
        stream = asyncio.run_coroutine_threadsafe(_result(future), h.loop).result(20)
        finish(h, stream)
        stream.__exit__(None, None, None)
        client.close()


async def _result(future: "asyncio.Future[OpenStream]") -> OpenStream:
    return await future


def test_the_prefill_worker_dies_between_reservation_and_commit() -> None:
    with harness(P, P, D) as h:
        h.script.hold_commit = asyncio.Event()
        with OpenStream(h) as stream:
            stream.read(1)
            holder = next(worker for worker in h.named(P) if worker.held)
            h.loop.call_soon_threadsafe(h.script.hold_commit.set)
            h.call(holder.kill())
            finish(h, stream)


def test_the_prefill_worker_dies_after_the_hand_over() -> None:
    with harness(P, D) as h, OpenStream(h) as stream:
        stream.read(5)
        h.call(h.named(P)[0].kill())
        finish(h, stream)


def test_both_prefill_workers_die_at_once() -> None:
    with harness(P, P, D) as h:
        h.script.hold_commit = asyncio.Event()
        with OpenStream(h) as stream:
            stream.read(1)
            for worker in h.named(P):
                h.call(worker.kill())
            h.loop.call_soon_threadsafe(h.script.hold_commit.set)
            for worker in h.named(P):
                h.call(worker.start())
            finish(h, stream)


def test_every_worker_dies_again_and_again() -> None:
    with harness(P, P, D, D) as h, OpenStream(h) as stream:
        for round_ in range(6):
            stream.read(3 * (round_ + 1))
            restart(h, h.workers[round_ % 4])
        finish(h, stream)


def test_a_broken_stream_is_attached_again_from_the_next_token() -> None:
    with harness(M) as h, OpenStream(h) as stream:
        stream.read(5)
        h.call(h.workers[0].break_streams())
        finish(h, stream)
        assert len(h.workers[0].submitted) == 1
        assert stream.last["pdcluster"]["resubmissions"] == 0


@pytest.mark.parametrize("code", [FailureCode.PREEMPTED, FailureCode.DRAINING, FailureCode.EXECUTOR_LOST])
def test_a_worker_gives_the_request_back(code: FailureCode) -> None:
    with harness(M, M) as h:
        h.script.fail_after = lambda request: (6, FailedNote(0, code, "x")) if request.epoch == 1 else None
        with OpenStream(h) as stream:
            finish(h, stream)
            assert stream.last["pdcluster"]["resubmissions"] == 1
        assert [len(worker.submitted) for worker in h.workers] == [1, 1]


def test_a_request_that_ends_every_executor_is_poison() -> None:
    note = FailedNote(0, FailureCode.EXECUTOR_LOST, "the executor died", was_running=True)
    with harness(M) as h:
        h.script.fail_after = lambda request: (request.num_tokens - request.prompt_length + 1, note)
        with OpenStream(h) as stream:
            stream.read()
            assert stream.error is not None
            assert stream.error["code"] == "poison_request"
        assert [request.alone for request in h.workers[0].submitted] == [False, False, False, True]
        h.wait(lambda: not h.leaks())


def test_no_room_is_503_before_the_first_token() -> None:
    with harness(M) as h, h.client() as client:
        h.script.refuse = lambda request: FailedNote(0, FailureCode.OVERLOADED, "no room", 3.0)
        response = client.post("/v1/completions", json={"model": "fake", "prompt": PROMPT})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "3"
        assert response.json()["error"]["code"] == "overloaded"
        assert not h.leaks()


def test_a_worker_refuses_the_request_itself() -> None:
    with harness(M) as h, h.client() as client:
        h.script.refuse = lambda request: FailedNote(0, FailureCode.INVALID_ARGUMENT, "prompt: 4 tokens, limit 3")
        response = client.post("/v1/completions", json={"model": "fake", "prompt": PROMPT})
        assert response.status_code == 400
        assert "limit 3" in response.json()["error"]["message"]


def test_without_a_worker_the_queue_times_out() -> None:
    with RouterHarness(M, wait_ready=False, queue_timeout=0.3) as h:
        h.call(h.workers[0].kill())
        with h.client() as client:
            assert client.get("/ready").status_code == 503
            response = client.post("/v1/completions", json={"model": "fake", "prompt": PROMPT})
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert not h.leaks()


def test_the_deadline_ends_an_open_stream_with_an_error_event() -> None:
    with harness(M, pace=0.2, request_timeout=0.7) as h, OpenStream(h) as stream:
        stream.read()
        assert stream.error is not None
        assert stream.error["code"] == "deadline_exceeded"
        h.wait(lambda: not h.leaks())


def test_a_client_that_leaves_in_mid_stream_frees_everything() -> None:
    with harness(P, D, pace=0.05) as h:
        with OpenStream(h) as stream:
            stream.read(3)
        h.wait(lambda: not h.leaks())
        assert h.named(D)[0].aborted


def test_a_client_that_leaves_before_the_first_token_frees_everything() -> None:
    with harness(P, D) as h:
        h.script.hold = asyncio.Event()
        with h.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={"model": "fake", "prompt": PROMPT}, timeout=0.3)
        h.wait(lambda: not h.leaks())
        assert h.named(P)[0].aborted


def test_a_stop_string_ends_the_request_at_its_holder() -> None:
    with harness(P, D) as h:
        with OpenStream(h) as stream:
            finish(h, stream)
            text = "".join(chr(token - 70 + ord("a")) for token in stream.tokens)
        with OpenStream(h, stop=text[8:11]) as stopped:
            stopped.read()
            assert stopped.reason == "stop"
            assert stopped.tokens == stream.tokens[: len(stopped.tokens)]
            assert len(stopped.tokens) <= 11
        h.wait(lambda: not h.leaks())
