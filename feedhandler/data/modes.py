"""How a subscriber wants its records: everything, the newest, or the newest at most so often.

It declares that by one more subscription, to a word that no topic begins with, which any ZeroMQ library can:

    @all            everything, as long as it keeps up; how much it missed is sent to it
    @latest         the newest of each topic, whenever there is room
    @interval=100   the newest of each topic, at most every 100 ms
    @within=50      everything, together what comes within 50 ms: for whoever is not to be woken for each record

What a slow subscriber is due is one record per topic, however slow it is: with `@all` and `@within`, and without a
word, once its queue is full and until it has read everything. Pure: the sockets ask for what may leave. Answers
and counts go to that subscriber alone, as notices under the word that it declared. One that declared nothing gets
a notice only if it has missed records that count each.
"""

from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.kinds import EVERY, keeps_every
from feedhandler.data.units import NS_PER_MS, NS_PER_S

KIND_OFFSET: Final = wire.KIND_OFFSET
MARK: Final = b"@"  # begins a declaration, and no topic
ALL: Final = b"@all"
LATEST: Final = b"@latest"
INTERVAL: Final = b"@interval="
WITHIN: Final = b"@within="
INTERVAL_MS_MIN: Final = 10
INTERVAL_MS_MAX: Final = 3_600_000
# What leaves at once: so little that what a slow reader has not read yet is not old when it does.
CHUNK_RECORDS: Final = 32
CHUNK_SIZE: Final = CHUNK_RECORDS * wire.TICKER_SIZE
CHUNKS_MAX: Final = 8  # in one turn of the loop: others are served in between
# With `@within` no more than this waits for its time, whatever the rate: some 200 records of books.
GATHERED_SIZE: Final = 1 << 16
NOTICE_EVERY_NS: Final = NS_PER_S
NEVER: Final = (1 << 63) - 1
CHOICES: Final = (
    f"@all, @latest, @interval=MS or @within=MS, with {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX} milliseconds"
)

assert len(INTERVAL) + len(str(INTERVAL_MS_MAX)) < wire.TOPIC_SIZE, (
    "a declaration is the topic of its notices"
)


class Notice(msgspec.Struct, omit_defaults=True):
    """Body of a notice.

    skipped counts, since the declaration, the records that this subscriber did not get: passed over for newer
    ones of their topics. Without a declaration, since its queue was full, which is over: then gap counts those
    among them of kinds that keep every record.
    """

    mode: str = ""  # what is in force
    interval_ms: int = 0
    skipped: int = 0
    gap: int = 0
    error: str = ""


class Pace:
    """One subscriber's mode, and what it is due.

    A message that is kept here may be changed by its owner, as long as it is the newest of its topic.
    """

    __slots__ = (
        "_due_mono_ns",
        "_every_ns",
        "_gather_ns",
        "_held",
        "_noticed_mono_ns",
        "_notices",
        "_notified",
        "_waiting",
        "declaration",
        "is_conflated",
        "skipped",
    )

    def __init__(self, declaration: bytes, now_mono_ns: int) -> None:
        """Raises ValueError with the choices."""
        self.declaration = declaration
        every_ns = _every_ns(declaration)
        self.is_conflated = is_conflated(declaration)
        self._every_ns = every_ns if self.is_conflated else 0
        self._gather_ns = 0 if self.is_conflated else every_ns
        self.skipped = 0
        self._notified = 0
        self._notices = 0
        self._noticed_mono_ns = now_mono_ns
        self._waiting: dict[bytes, bytes | bytearray] = {}  # may leave when there is room; by topic
        self._held: dict[bytes, bytes | bytearray] = {}  # not before it is due
        self._due_mono_ns = now_mono_ns

    @property
    def is_waiting(self) -> bool:
        """True if something may leave as soon as there is room."""
        return bool(self._waiting)

    @property
    def gathered_size(self) -> int:
        """How many bytes may wait for their time, though there is room."""
        return GATHERED_SIZE if self._gather_ns else 0

    @property
    def is_immediate(self) -> bool:
        """True if a record may leave at once, past this: nothing waits, and nothing has to."""
        return not self._every_ns and not self._waiting

    def look_mono_ns(self, now_mono_ns: int) -> int:
        """Return when `release` is to be called next, at the latest; `NEVER` if it depends on room alone."""
        if self._gather_ns:
            return max(now_mono_ns, self._due_mono_ns)
        if not self._every_ns or self._waiting:
            return NEVER
        return max(now_mono_ns, self._due_mono_ns) if self._held else now_mono_ns + self._every_ns

    def note(self, topic: bytes, message: bytes | bytearray) -> None:
        """Keep a topic's newest message for later."""
        kept = self._held if self._every_ns and topic not in self._waiting else self._waiting
        if topic in kept:
            self.skipped += 1
        kept[topic] = message

    def lose(self, skipped: int, gap: int, header: bytes) -> None:
        """Note records that are not kept: how many, how many of them count each, and the header of one of those."""
        self.skipped += skipped

    def skip(self, count: int) -> None:
        """Forget what is kept, and that many more: the subscriber will get the newest of everything anew."""
        self.skipped += count + len(self._waiting) + len(self._held)
        self._waiting, self._held = {}, {}

    def take(self) -> list[bytes | bytearray]:
        """Return messages that may leave now, the longest waiting first: a few, [] if there are none."""
        waiting = self._waiting
        topics = [topic for topic, _ in zip(waiting, range(CHUNK_RECORDS), strict=False)]
        return [waiting.pop(topic) for topic in topics]

    def take_all(self) -> list[bytes | bytearray]:
        """Return all that is kept, due or not."""
        messages = [*self._waiting.values(), *self._held.values()]
        self._waiting, self._held = {}, {}
        return messages

    def release(self, now_mono_ns: int) -> bool:
        """Let go what is due; True if something may leave that had to wait."""
        if now_mono_ns < self._due_mono_ns:
            return False
        if self._gather_ns:
            self._due_mono_ns = now_mono_ns + self._gather_ns
            return True
        if not self._held or self._waiting:
            return False  # what waits was due before, and has not left yet
        self._waiting, self._held = self._held, self._waiting
        # Counted from now: a loop that was late does not make up for it in a burst.
        self._due_mono_ns = now_mono_ns + self._every_ns
        return True

    def answer(self, session: int, now_ns: int) -> bytes:
        """Return the notice of what is in force."""
        self._notices += 1
        self._notified = self.skipped
        body = Notice(
            mode=self.declaration[len(MARK) :].split(b"=")[0].decode(),
            interval_ms=(self._every_ns or self._gather_ns) // NS_PER_MS,
            skipped=self.skipped,
        )
        return notice(self.declaration, body, session, self._notices, now_ns)

    def report(self, session: int, now_mono_ns: int, now_ns: int) -> bytes | None:
        """Return a notice if more was skipped than the last one had, each second at most."""
        if self.skipped == self._notified or now_mono_ns - self._noticed_mono_ns < NOTICE_EVERY_NS:
            return None
        self._noticed_mono_ns = now_mono_ns
        return self.answer(session, now_ns)


class Overflow(Pace):
    """What one is due that declared nothing, and whose queue was full: it is over when all of that has left."""

    __slots__ = ("_head", "gap")

    def __init__(self, now_mono_ns: int) -> None:
        super().__init__(ALL, now_mono_ns)
        self._head = b""  # header of a record that counts, and did not leave
        self.gap = 0  # how many those are

    def note(self, topic: bytes, message: bytes | bytearray) -> None:
        waiting = self._waiting
        if (passed := waiting.get(topic)) is not None:
            self.skipped += 1
            if EVERY[passed[KIND_OFFSET]]:
                self.gap += 1
                self._head = bytes(passed[: wire.HEADER_SIZE])
        waiting[topic] = message

    def lose(self, skipped: int, gap: int, header: bytes) -> None:
        self.skipped += skipped
        if gap:
            self.gap += gap
            self._head = header

    def drop(self) -> None:
        """Forget what is kept: the newest of everything comes anew."""
        for record in self._waiting.values():
            counts = keeps_every(record[KIND_OFFSET])
            self.lose(1, counts, bytes(record[: wire.HEADER_SIZE]))
        self._waiting = {}

    def end(self) -> bytes | None:
        """Return what is to be said of it now that it is over: nothing, if nothing that counts is missing.

        Under the topic of one of the records, since one that subscribed to no more than that gets no other.
        """
        if not self.gap:
            return None
        document = wire.Document(*wire.HEADER.unpack(self._head))
        document.topic, document.kind, document.flags = (
            wire.unpadded(self._head[: wire.TOPIC_SIZE]),
            wire.NOTICE,
            0,
        )
        document.body = msgspec.json.encode(Notice(skipped=self.skipped, gap=self.gap))
        return wire.pack_document(document)


def is_declaration(prefix: bytes) -> bool:
    """Return whether a subscription declares something, rather than selecting topics."""
    return prefix.startswith(MARK)


def is_conflated(declaration: bytes) -> bool:
    """Return whether records are passed over by intent; b"" is no declaration."""
    return declaration not in (b"", ALL) and not declaration.startswith(WITHIN)


def refusal(declaration: bytes, error: str, session: int, now_ns: int) -> bytes:
    """Return the notice for a declaration that has no effect."""
    return notice(declaration[: wire.TOPIC_BYTES_MAX], Notice(error=error), session, 1, now_ns)


def notice(declaration: bytes, body: Notice, session: int, sequence: int, now_ns: int) -> bytes:
    """Return a notice as it is sent; its sequence counts those of one subscriber."""
    encoded = msgspec.json.encode(body)
    topic = declaration.decode(errors="replace")
    document = wire.Document(
        topic, wire.VERSION, wire.NOTICE, 0, session, sequence, 0, now_ns, now_ns, encoded
    )
    return wire.pack_document(document)


def _every_ns(declaration: bytes) -> int:
    if declaration in (ALL, LATEST):
        return 0
    digits = declaration.removeprefix(WITHIN if declaration.startswith(WITHIN) else INTERVAL)
    if digits != declaration and digits.isdigit() and len(digits) <= len(str(INTERVAL_MS_MAX)):
        interval_ms = int(digits)
        if INTERVAL_MS_MIN <= interval_ms <= INTERVAL_MS_MAX:
            return interval_ms * NS_PER_MS
    shown = declaration[: wire.TOPIC_BYTES_MAX].decode(errors="replace")
    raise ValueError(f"unknown mode {shown!r}; choose {CHOICES}")
