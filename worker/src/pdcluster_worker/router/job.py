"""One choice of one HTTP request while the router works on it: its life, its request as sent, its times."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from pdcluster_worker.core.ids import RequestId
from pdcluster_worker.core.request import Request, TokenLogprob
from pdcluster_worker.router.errors import APIError
from pdcluster_worker.router.life import Life
from pdcluster_worker.router.policy import block_hashes
from pdcluster_worker.router.sampling import Choice
from pdcluster_worker.splitwise.request_codec import pack_words

if TYPE_CHECKING:
    from pdcluster_worker.router.link import Link


class Listener(Protocol):
    """Who asked for the choice. Called from the router's loop; neither method may wait or raise."""

    def token(self, token: int, logprob: TokenLogprob | None) -> bool:
        """The next token. True ends the choice here and now, with reason stop."""
        ...

    def ended(self, reason: str, error: APIError | None) -> None:
        """Exactly once, after the last token. `reason` is stop or length; or there is an error."""
        ...


class Times:
    """Seconds on the loop's clock; 0 before it happened."""

    def __init__(self, received: float) -> None:
        self.received = received
        self.submitted = 0.0
        self.first_token = 0.0
        self.last_token = 0.0
        self.ended = 0.0


class Job:
    """`handles` and the timers are the dispatcher's."""

    def __init__(
        self, request_id: RequestId, choice: Choice, listener: Listener, received: float, deadline: float
    ) -> None:
        self.life = Life(request_id)
        self.choice = choice
        self.listener = listener
        self.times = Times(received)
        self.deadline = deadline
        self.cache_salt = ""
        self.trace_parent = ""
        self.avoid = ""
        self.not_before = 0.0
        self.handles: dict[Link, int] = {}
        self.timers: list[asyncio.TimerHandle] = []
        self.outstanding: Link | None = None
        self.prefill_worker = ""
        self.decode_worker = ""
        self._prompt = pack_words(choice.prompt)
        self._hashes: list[int] | None = None

    @property
    def hashes(self) -> list[int]:
        """Of the prompt's blocks, for prefix affinity."""
        if self._hashes is None:
            self._hashes = block_hashes(self._prompt, self.cache_salt)
        return self._hashes

    @property
    def prompt_tokens(self) -> int:
        return len(self.choice.prompt)

    def request(self) -> Request:
        """As it is sent now: the prompt and all output so far, at the present epoch."""
        return Request(
            request_id=self.life.request_id,
            epoch=self.life.epoch,
            tokens=self._prompt + pack_words(self.life.tokens),
            prompt_length=len(self.choice.prompt),
            sampling=self.choice.sampling,
            deadline=self.deadline,
            cache_salt=self.cache_salt,
            trace_parent=self.trace_parent,
            alone=self.life.alone,
        )
