"""When the merger counts as gone. Pure: the caller reports what was received, and the time."""

from typing import Final

# It sends a heartbeat every second. A connection that is gone is known at once; the pause is for one that returns.
ABSENT_NS: Final = 1_000_000_000
SILENT_NS: Final = 2_500_000_000
HELD_UP_NS: Final = 500_000_000  # between two looks, beyond which it is us who were away


class MergerSilence:
    """Whether nothing is received from the merger; true until the first record."""

    def __init__(self, now_mono_ns: int) -> None:
        self.is_silent = True
        self._has_received = False
        self._received_mono_ns = now_mono_ns
        self._looked_mono_ns = now_mono_ns

    def on_receive(self) -> None:
        """Something was received from the merger."""
        self._has_received = True

    def look(self, now_mono_ns: int, *, is_connected: bool) -> bool:
        """Decide anew, several times a second; True if it has just fallen silent.

        After a pause of our own the time begins anew: what was sent meanwhile has not been read.
        """
        if self._has_received or now_mono_ns - self._looked_mono_ns > HELD_UP_NS:
            self._received_mono_ns = now_mono_ns
        if self._has_received:
            self.is_silent = False
        self._has_received, self._looked_mono_ns = False, now_mono_ns
        patience_ns = SILENT_NS if is_connected else ABSENT_NS
        if self.is_silent or now_mono_ns - self._received_mono_ns <= patience_ns:
            return False
        self.is_silent = True
        return True
