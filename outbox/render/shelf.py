"""What one worker process has in its cache, as its parent knows it.

The parent decides what is kept, so a source crosses the socket once and the two never disagree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Shelf(Generic[K]):
    """Keys in order of use, each with a number that is never used again, and its size."""

    def __init__(self, *, bytes_max: int, keys_max: int) -> None:
        self._bytes_max = bytes_max
        self._keys_max = keys_max
        self._held: OrderedDict[K, tuple[int, int]] = OrderedDict()
        self._held_bytes = 0
        self._next = 0

    def find(self, key: K) -> int | None:
        """Return the number of a key that is held, and count it as used just now."""
        held = self._held.get(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        return held[0]

    def put(self, key: K, size_bytes: int) -> int:
        """Hold a new key, and return its number."""
        number = self._next
        self._next += 1
        self._held[key] = (number, size_bytes)
        self._held_bytes += size_bytes
        return number

    def trim(self) -> list[int]:
        """Drop what was not used for longest until the rest fits; return its numbers."""
        dropped = []
        while len(self._held) > self._keys_max or (
            self._held_bytes > self._bytes_max and len(self._held) > 1
        ):
            _, (number, size_bytes) = self._held.popitem(last=False)
            self._held_bytes -= size_bytes
            dropped.append(number)
        return dropped
