"""Numbers, prices and times as people read them in a terminal."""

import math
import time

from feedhandler.data.units import NS_PER_S


def price(value: float, places: int | None) -> str:
    """Return a price with so many decimals, its tick's; None: as many as it has. - for unknown."""
    return number(value) if places is None or math.isnan(value) else f"{value:.{places}f}"


def number(value: float) -> str:
    """Return a price or size in plain digits, - for unknown."""
    if math.isnan(value):
        return "-"
    text = f"{value:.8f}" if abs(value) < 1 else f"{value:.10g}"
    if "e" in text:
        text = f"{value:.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rounded(value: float) -> str:
    """Return an amount in plain digits, of which six count."""
    return number(float(f"{value:.6g}"))


def duration(seconds: float) -> str:
    """Return a time span with a unit that suits it."""
    if seconds < 120:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def countdown(due_ns: int, now_ns: int) -> str:
    """Return how long it is until then, in hours, minutes and seconds; - where that is not known."""
    if not due_ns:
        return "-"
    minutes, seconds = divmod(max(0, due_ns - now_ns) // NS_PER_S, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def moment(ns: int) -> str:
    """Return a time with its date."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ns // NS_PER_S))


def clock(ns: int) -> str:
    """Return a time of day, to the microsecond."""
    seconds, rest = divmod(ns, NS_PER_S)
    return f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}"
