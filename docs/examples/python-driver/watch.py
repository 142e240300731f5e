"""The journal of what happened to sandboxes, in order, and what watchers are told of it.

    publish ─► 41 42 43 44 │ bounded: the oldest entries are dropped
                  ▲     ▲
       cursor "….42"     a watcher that falls behind what is kept gets OUT_OF_RANGE and starts over

A cursor is the incarnation and the number of the last entry that was told, so it means nothing to another driver process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Optional

import grpc

from cofferdam.compute.v1 import compute_driver_pb2 as pb
from errors import Refusal

ENTRIES_MAX = 4096
# The contract says at least every 10 s.
BOOKMARK_S = 5.0


class Journal:
    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.entries: deque[tuple[int, str, pb.WatchSandboxesResponse]] = deque(maxlen=ENTRIES_MAX)
        self.last = 0
        self.grown = asyncio.Event()

    def publish(self, gateway_id: str, event: pb.WatchSandboxesResponse) -> None:
        """Appends what has happened, and wakes all watchers."""
        self.last += 1
        event.cursor = self.cursor(self.last)
        self.entries.append((self.last, gateway_id, event))
        self.grown.set()
        self.grown = asyncio.Event()

    async def watch(
        self, gateway_id: str, cursor: str, snapshot: Callable[[], Iterable[pb.Sandbox]]
    ) -> AsyncIterator[pb.WatchSandboxesResponse]:
        """Never ends by itself."""
        if cursor:
            position = self.position(cursor)
        else:
            # Taken whole, before anything else can happen: it is the state at `position`.
            sandboxes = list(snapshot())
            position = self.last
            for sandbox in sandboxes:
                yield pb.WatchSandboxesResponse(snapshot=sandbox)
            yield self.bookmark(position, synced=True)
        while True:
            # Taken before the entries are read, so that one that comes meanwhile is not slept through.
            grown = self.grown
            for number, event in self.since(position, gateway_id):
                position = number
                if event is not None:
                    yield event
            if position < self.last:
                continue
            try:
                await asyncio.wait_for(grown.wait(), BOOKMARK_S)
            except asyncio.TimeoutError:
                yield self.bookmark(position, synced=False)

    def since(self, position: int, gateway_id: str) -> list[tuple[int, Optional[pb.WatchSandboxesResponse]]]:
        """What came after a position; None in place of what is another gateway's."""
        if self.entries and position < self.entries[0][0] - 1:
            raise _too_old()
        return [(n, event if owner == gateway_id else None) for n, owner, event in self.entries if n > position]

    def position(self, cursor: str) -> int:
        incarnation, _, number = cursor.rpartition(".")
        if incarnation != self.incarnation or not number.isdecimal() or int(number) > self.last:
            raise _too_old()
        return int(number)

    def cursor(self, position: int) -> str:
        return f"{self.incarnation}.{position}"

    def bookmark(self, position: int, synced: bool) -> pb.WatchSandboxesResponse:
        mark = pb.Bookmark(synced=synced, incarnation=self.incarnation)
        return pb.WatchSandboxesResponse(bookmark=mark, cursor=self.cursor(position))


def _too_old() -> Refusal:
    return Refusal(grpc.StatusCode.OUT_OF_RANGE, "the cursor is too old, or of another incarnation: watch without one")
