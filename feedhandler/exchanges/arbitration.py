"""Line arbitration: which of several redundant connections is the first to bring an update.

    line A ──101──102───────103─▶     first, first, late …
    line B ───101──102──103─────▶     duplicate, duplicate, first

Updates are known by an id that grows within a channel: the exchange's own, or the time that it states. Knows no
prices and asks no clock: ids and times come in. Compiled where there is a compiler, with the types of
`arbitration.pxd`.
"""

from typing import Final

LINES_MAX: Final = 6  # connections that carry a symbol at a time: three legs, and who is to follow each
_LINES_MAX = (
    LINES_MAX  # the same for the functions below: what has a type in the .pxd is not to be had from Python
)

# Another line's ids that are far below, while nothing was first for so long, are of an exchange that has begun
# to count anew. Ids not far below are a line's that was held up.
OVERTAKEN_NS: Final = 10_000_000_000
# So long after a new count began, a line that has sent nothing yet is taken to count so, too.
ANEW_NS: Final = 60_000_000_000
TINY: Final = 16  # an id below this has nothing far below it, but 1
GAPS_MAX = LINES_MAX  # that are remembered: as many lines can begin at a time
NOBODY: Final = -1  # was first with the newest update: that line is gone, and whoever repeats it is first


class Line:
    """One connection, as the channels see it that it feeds: which of them it is, and how it fares.

    frames are those about our symbols: first to bring an update, duplicate (another line was first, by behind_ns in
    sum), or late (older than the newest). Lines that carry the same symbols are a group.
    """

    def __init__(self, index: int, group: int = 0) -> None:
        _check(index)
        self.index = index
        self.group = group
        self.frames = self.first = self.duplicate = self.late = self.behind_ns = 0


class Arbitration:
    """The lines of one channel of one symbol: the newest update, and the last one on each line.

    update_id is that of the newest, 0 before any. updates counts those on any line since all was forgotten, but the
    late ones of a line's own: no clock is asked for it. An exchange that counts anew begins an epoch.

    is_once: what is repeated is a duplicate, whoever repeats it, also after all connections were gone. For kinds of
    which each record counts. A line that begins may be ahead of the others, which still have the records between
    the newest and its first: these count, too, in the order of each line, and the newest stays what it is.

        line A (is new)       ──105─────────106──▶     first, first
        line B (is behind) ──102──────103──104──105──▶ first, first, first, duplicate
    """

    def __init__(self, *, is_once: bool = False) -> None:
        self._is_once = is_once
        # ids between which no update has come: other lines may have
        self._gaps: tuple[tuple[int, int], ...] = ()
        self.update_id = self._epoch = self._first_ns = self._anew_ns = self._before_id = 0
        self._ids = [0, 0, 0, 0, 0, 0]  # by line, as long as LINES_MAX: compiled they are arrays
        self._epochs = [0, 0, 0, 0, 0, 0]
        self._heard_ns = [0, 0, 0, 0, 0, 0]
        self._holds = [0, 0, 0, 0, 0, 0]
        self.reset()

    def reset(self) -> None:
        """Forget every update, as at the beginning; where each counts once, the newest is remembered."""
        self.updates = 0
        self._owner = NOBODY
        self._gaps = ()
        if not self._is_once:
            self.update_id = self._epoch = self._first_ns = self._anew_ns = self._before_id = 0
        for line in range(_LINES_MAX):
            self.renew(line)

    def renew(self, line: int) -> None:
        """Another connection has this line from now on, and has sent nothing yet."""
        _check(line)
        self._ids[line] = self._heard_ns[line] = self._holds[line] = 0
        self._epochs[line] = self._epoch

    def inherit(self, line: int) -> None:
        """The channel is silent on this line, and was silent elsewhere since it began: the newest update holds."""
        _check(line)
        self._holds[line] = 1

    def release(self, line: int) -> None:
        """A line is gone: another that repeats what it was first with is first."""
        _check(line)
        if self._owner == line:
            self._owner = NOBODY

    def accept(
        self, line: Line, update_id: int, recv_ns: int, present_ns: int = 0, is_live: bool = True
    ) -> bool:
        """Note an update; False if it is a duplicate, or late.

        A line that repeats what it was first with does so on purpose: it is first again. present_ns is what the
        exchange's clock shows if ids are times, which may be set back, else 0. is_live: the newest update is known
        to be current; else whoever repeats it is first.
        """
        # hot: `make bench-micro`, decode
        own = line.index
        _check(own)
        line.frames += 1
        before_id = self._ids[own]
        if present_ns and self._epochs[own] < self._epoch:
            # Of times a later one is newer, whichever line was the first to go back.
            self._epochs[own], self._ids[own] = self._epoch, 0
        is_overtaken = self._is_overtaken(recv_ns)
        is_present = is_overtaken and present_ns != 0 and self._is_present(update_id, recv_ns, present_ns)
        if update_id < self._ids[own]:
            # Below the line's last one, may it be of a new count? A time may if it is of now, and nothing else was
            # first for a while.
            if not (is_present or (not present_ns and _is_far_below(update_id, self._ids[own]))):
                line.late += 1  # who repeats the past sends no sign of life
                return False
            self._epochs[own] += 1
        self._note(own, update_id, recv_ns)
        if self._gaps:
            if self._fill_gap(own, update_id):
                line.first += 1
                return True
            self._close_gaps(own, before_id, update_id)
        if self._is_newest(own, update_id):
            is_others = self._owner != own and self._owner != NOBODY
            if self._is_once or (is_live and is_others):
                line.duplicate += 1
                line.behind_ns += recv_ns - self._first_ns if is_others else 0
                return False
        elif not self._is_newer(own, update_id):
            if not (is_present or (is_overtaken and not present_ns and update_id <= self.update_id // 2)):
                line.late += 1
                return False
            self._epochs[own] = self._epoch + 1
        if self._is_once and not before_id:
            self._open_gap(own, update_id)
        self._take(own, update_id, recv_ns)
        line.first += 1
        return True

    def _is_overtaken(self, recv_ns: int) -> bool:
        """True if nothing was first for so long, or nothing since our own clock was set back."""
        return recv_ns - self._first_ns >= OVERTAKEN_NS or self._first_ns - recv_ns >= OVERTAKEN_NS

    def _is_present(self, update_id: int, recv_ns: int, present_ns: int) -> bool:
        """True for a time of now. Those far ahead since our own clock was set back are in order as before."""
        if recv_ns < self._first_ns and update_id > present_ns + OVERTAKEN_NS:
            return False
        return update_id >= present_ns - OVERTAKEN_NS

    def _is_newest(self, own: int, update_id: int) -> bool:
        return self._first_ns != 0 and self._epochs[own] == self._epoch and update_id == self.update_id

    def _is_newer(self, own: int, update_id: int) -> bool:
        is_newer = self._epochs[own] == self._epoch and update_id > self.update_id
        return is_newer or self._first_ns == 0 or self._epochs[own] > self._epoch

    def _note(self, own: int, update_id: int, recv_ns: int) -> None:
        """Note a line's own progress, and whether it counts as others do by now."""
        self.updates += 1
        if self._epochs[own] < self._epoch and (
            update_id <= self._before_id // 2 or (not self._ids[own] and recv_ns - self._anew_ns >= ANEW_NS)
        ):
            self._epochs[own] = self._epoch
        self._ids[own] = update_id
        self._heard_ns[own] = recv_ns

    def _take(self, own: int, update_id: int, recv_ns: int) -> None:
        if self._epochs[own] > self._epoch:
            self._before_id, self._anew_ns = self.update_id, recv_ns
            self._gaps = ()
        self.update_id = update_id
        self._epoch = self._epochs[own]
        self._owner = own
        self._first_ns = recv_ns

    # --- what a line that begins may have jumped over

    def _open_gap(self, own: int, update_id: int) -> None:
        """Remember what is between the newest update and the first of a line, which is about to be the newest."""
        if self._first_ns and self._epochs[own] == self._epoch and update_id - self.update_id > 1:
            self._gaps = (*self._gaps, (self.update_id, update_id))[-GAPS_MAX:]

    def _fill_gap(self, own: int, update_id: int) -> bool:
        """Note an update if it is in a gap; what is below it there has been brought, or is missing on that line."""
        if self._epochs[own] != self._epoch:
            return False
        for gap in self._gaps:
            if gap[0] < update_id < gap[1]:
                others = [other for other in self._gaps if other != gap]
                self._gaps = (*others, (update_id, gap[1]))
                return True
        return False

    def _close_gaps(self, own: int, before_id: int, update_id: int) -> None:
        """A line that was below a gap has brought all that it had in it."""
        if before_id and self._epochs[own] == self._epoch:
            self._gaps = tuple([gap for gap in self._gaps if not before_id < gap[1] <= update_id])

    # --- what is asked about it

    def is_kept(self, line: int) -> bool:
        """True if a line keeps the newest update current: the channel has sent on it, or nothing else since."""
        _check(line)
        return self._heard_ns[line] != 0 or self._holds[line] != 0

    def heard_ns(self, line: int) -> int:
        """Return when the channel last sent on a line, 0 if it has not."""
        _check(line)
        return self._heard_ns[line]

    def line_update_id(self, line: int) -> int:
        """Return the newest update id on one line, 0 if the channel has not sent on it."""
        _check(line)
        return self._ids[line]


def _check(line: int) -> None:
    if not 0 <= line < _LINES_MAX:
        raise IndexError("no such line")


def _is_far_below(update_id: int, newest_id: int) -> bool:
    return update_id <= newest_id // 2 and (newest_id >= TINY or update_id <= 1)
