"""How much longer units of time are: ours are counted in nanoseconds everywhere, an exchange's in milliseconds."""

from typing import Final

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_S
NS_PER_DAY: Final = 24 * 60 * NS_PER_MINUTE
MS_PER_HOUR: Final = 3_600_000
