"""What a feed has received and sent, offered to whoever records it: packed, numbered, and in order.

    frames, answers, opens, closes ─▶ Tap ─▶ batch ─▶ held ─▶ the recorder, when it is there and reads

A batch is what came between two calls of `flush`, or as much as it may hold, in one message. While nobody takes
them, batches are held, so that a recorder may be started anew; beyond `HELD_SIZE_MAX` the oldest are dropped,
counted, and told as a gap in their place. Whatever happens there, the feed goes on. Nothing private passes:
addresses lose their queries, and headers of requests are not taken.

Pure: clocks and what sends come in. Compiled where there is a compiler, with the types of `tap.pxd`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from feedhandler.data import raw
from feedhandler.recordings import packing
from feedhandler.recordings.packing import CONNECTION_SIZE_MAX, ITEM, ITEM_SIZE, NAME_SIZE_MAX, pack
from feedhandler.recordings.plan import KeptLists, Plan
from feedhandler.recordings.traffic import Item, What

BATCH_SIZE: Final = 64 << 10  # that is sent at once: a message costs both sides some 10 us
HELD_SIZE_MAX: Final = 32 << 20  # some seconds of 40,000 frames a second
ITEM_SIZE_MAX: Final = 48 << 20  # a message between us has 64 MiB at most; the largest list known has 10
NOT_TAKEN: Final = "the recorder was not there, or did not read"

OnFrame = Callable[[Any, int], bool]

# For what is compiled: what has a type in the .pxd is not to be had from Python.
_BATCH_SIZE, _ITEM_SIZE = BATCH_SIZE, ITEM_SIZE
_SENT, _RECEIVED = int(What.SENT), int(What.RECEIVED)


class Tap:
    """What the module's first lines say.

    send is called with each batch, and returns False if it cannot be taken now. soon calls what it is given once
    the records of this turn of the loop have left: nobody waits for a recording. `flush` is to be called several
    times a second: each message to the recorder costs a feed as much as a hundred frames do.
    """

    def __init__(
        self,
        send: Callable[[bytes], bool],
        wall_ns: Callable[[], int],
        mono_ns: Callable[[], int],
        soon: Callable[[Callable[[], object]], object],
    ) -> None:
        self._send = send
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._soon = soon
        self._flush = self.flush
        # Grows by doubling, and stays: one that begins anew with each batch is moved forty times on its way.
        self._batch = bytearray(2 * BATCH_SIZE)
        self._used = 0  # of that
        self._items = 0  # in it
        self._is_full = False  # and is sent soon
        self._held: deque[tuple[bytes, int]] = deque()  # and how many items are in each
        self._held_size = 0
        self._greeting: deque[bytes] = deque()  # what holds, for a recorder that has just come
        self._dropped = 0  # items since the last gap that was told,
        self._dropped_ns = (0, 0)  # the first of them
        self.dropped = 0  # items, since the feed started
        self._answers = 0
        self._serials: dict[str, int] = {}  # connections so far, by market
        self._plan: Plan | None = None
        self._planned: list[Item] = []  # the item of that, once there is one
        self._lists: KeptLists[Item] = KeptLists()
        self._opened: dict[str, Item] = {}  # of connections that are open

    # --- what happens

    def begin(self, plan: Plan) -> None:
        """The feed is to receive this from now on."""
        if plan != self._plan:
            self._plan = plan
            self._planned = [Item(What.HEADER, *self.now(), data=msgspec.json.encode(plan))]
            self._put(self._planned[0])

    def connection(self, market: str, on_frame: OnFrame) -> "TappedConnection":
        """A connection is about to be made; on_frame takes its frames."""
        return self.connections(market, {"": on_frame})[""]

    def connections(self, market: str, takers: Mapping[str, OnFrame]) -> dict[str, "TappedConnection"]:
        """One is about to be made, of a socket for each path, whose frames these take.

        They have a name in common, behind which stands the path.
        """
        self._serials[market] = serial = self._serials.get(market, 0) + 1
        return {
            path: TappedConnection(self, f"{market}.{serial}{path}", take) for path, take in takers.items()
        }

    def answered(self, url: str, body: bytes, recv_ns: int) -> None:
        """REST has answered, at that Unix time, which the records that come of it have as well."""
        self._answers += 1
        name = url[:NAME_SIZE_MAX]
        item = Item(What.ANSWERED, recv_ns, self._mono_ns(), number=self._answers, name=name, data=body)
        self._lists.take(self._plan, url, item)
        self._put(item)

    def opened(self, connection: str, url: str) -> None:
        """A connection is open; of its address the query may hold a token."""
        parts = urlsplit(url)
        name = f"{parts.scheme}://{parts.netloc}{parts.path}"[:NAME_SIZE_MAX]
        self._opened[connection] = item = Item(What.OPENED, *self.now(), connection, name=name)
        self._put(item)

    def closed(self, connection: str, frames: int, reason: str) -> None:
        """A connection is closed, or could not be opened."""
        self._opened.pop(connection, None)
        text = reason.encode()[:NAME_SIZE_MAX].decode(errors="ignore")
        self._put(Item(What.CLOSED, *self.now(), connection, frames, text))

    def now(self) -> tuple[int, int]:
        """Return Unix time and monotonic time."""
        return self._wall_ns(), self._mono_ns()

    def frame(
        self, what: int, connection: bytes, number: int, wall_ns: int, payload: bytes | bytearray | memoryview
    ) -> None:
        """A frame came, or has left."""
        # hot: `make bench-micro`, recorder
        at = self._room(_ITEM_SIZE + len(connection) + len(payload))
        self._used = packing.put_frame(
            self._batch, at, what, connection, number, wall_ns, self._mono_ns(), payload
        )
        self._items += 1
        if self._used >= _BATCH_SIZE and not self._is_full:
            self._is_full = True
            self._soon(self._flush)

    def _room(self, size: int) -> int:
        """Have room for so many bytes more; returns where."""
        used = self._used
        capacity = len(self._batch)
        if capacity - used < size:
            self._batch += bytes(max(capacity, size))
        return used

    def _put(self, item: Item) -> None:
        if len(item.data) > ITEM_SIZE_MAX:
            text = f"{len(item.data)} bytes are more than an item may have: {item.name}"
            item = Item(What.GAP, item.wall_ns, item.mono_ns, number=1, name=text[:NAME_SIZE_MAX])
        packed = pack(item)
        if len(packed) >= BATCH_SIZE:  # a list of instruments: no need to have room for it ever after
            self._hold_batch()
            self._hold(packed, 1)
            self.flush()
            return
        at = self._room(len(packed))
        self._used = at + raw.copy_all(self._batch, at, packed)
        self._items += 1
        if self._used >= BATCH_SIZE:
            self.flush()

    # --- to the recorder

    def on_join(self) -> None:
        """A recorder has come: it gets what holds by now, and then what was held."""
        kept = [*self._planned, *self._lists.pages, *self._opened.values()]
        self._greeting = deque(pack(replace(item, is_repeated=True)) for item in kept)
        self.flush()

    def flush(self) -> None:
        """Send what there is, as far as it is taken, and hold the rest."""
        self._hold_batch()
        self._hand_over()
        while self._held_size > HELD_SIZE_MAX:
            self._drop(*self._held.popleft())

    def _hold_batch(self) -> None:
        self._is_full = False
        if self._items:
            self._hold(raw.cut(self._batch, 0, self._used), self._items)
            self._used = self._items = 0

    def _hold(self, batch: bytes, items: int) -> None:
        self._held.append((batch, items))
        self._held_size += len(batch)

    def _hand_over(self) -> None:
        """Send what holds, then the gap, then what is behind it."""
        send, greeting, held = self._send, self._greeting, self._held
        while greeting:
            if not send(greeting[0]):
                return
            greeting.popleft()
        if self._dropped:
            if not send(self._gap()):
                return
            self._dropped = 0
        while held and send(held[0][0]):
            self._held_size -= len(held.popleft()[0])

    def _drop(self, batch: bytes, items: int) -> None:
        self._held_size -= len(batch)
        if not self._dropped:
            *_, wall_ns, mono_ns = ITEM.unpack_from(batch)
            self._dropped_ns = wall_ns, mono_ns
        self._dropped += items
        self.dropped += items

    def _gap(self) -> bytes:
        return pack(Item(What.GAP, *self._dropped_ns, number=self._dropped, name=NOT_TAKEN))


class TappedConnection:
    """One connection, from the attempt to its end; counts frames in each direction."""

    def __init__(self, tap: Tap, name: str, on_frame: OnFrame) -> None:
        self._tap = tap
        self._next = on_frame
        self._name = name
        self._bytes = name.encode()[:CONNECTION_SIZE_MAX]
        self.received = self.sent = 0

    def on_frame(self, payload: memoryview | bytearray, recv_ns: int) -> bool:
        """Have a frame taken, and note it, also if it cannot be."""
        # hot: `make bench-micro`, recorder
        try:
            return self._next(payload, recv_ns)
        finally:
            self.received += 1
            self._tap.frame(_RECEIVED, self._bytes, self.received, recv_ns, payload)

    def on_sent(self, payload: bytes) -> None:
        """A frame was sent."""
        self.sent += 1
        wall_ns, _ = self._tap.now()
        self._tap.frame(_SENT, self._bytes, self.sent, wall_ns, payload)

    def on_opened(self, url: str) -> None:
        """It is open."""
        self._tap.opened(self._name, url)

    def on_closed(self, reason: str) -> None:
        """It is closed, or could not be opened."""
        self._tap.closed(self._name, self.received, reason)
