"""Nanoseconds of longer units: times are counted in them everywhere."""

from typing import Final

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_S
NS_PER_DAY: Final = 24 * 60 * NS_PER_MINUTE
