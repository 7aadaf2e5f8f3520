"""Memory of keys that fades: each entry lives between one and two periods."""

from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Recent(Generic[KeyT, ValueT]):
    """Two generations of a dict; the older one is dropped as a whole, so that forgetting costs nothing."""

    def __init__(self, period: float, now: float = 0.0) -> None:
        self._period = period
        self._turn_at = now + period
        self._young: dict[KeyT, ValueT] = {}
        self._old: dict[KeyT, ValueT] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def put(self, key: KeyT, value: ValueT) -> None:
        self._young[key] = value

    def get(self, key: KeyT) -> ValueT | None:
        value = self._young.get(key)
        return value if value is not None else self._old.get(key)

    def remove(self, key: KeyT) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def expire(self, now: float) -> None:
        """Call now and then; cheap when nothing is due."""
        if now >= self._turn_at:
            long_ago = now >= self._turn_at + self._period
            self._old = {} if long_ago else self._young
            self._young = {}
            self._turn_at = now + self._period
