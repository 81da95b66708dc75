"""Which feed process of several has a symbol, when an exchange is spread over them.

By a hash of the exchange's own spelling: so each symbol's place depends on nothing but itself and the count of
shards, whatever else is wanted, now or later, and feeds and merger agree without a message. Pure.
"""

import re
import zlib
from typing import Final

import msgspec

SHARDS_MAX: Final = 16  # per exchange: each is a process with its own interpreter, some 50 MB

TEXT: Final = re.compile(r"([1-9][0-9]?)/([1-9][0-9]?)")


class Shard(msgspec.Struct, frozen=True, order=True):
    """One part of an exchange's symbols: number, from 1, of count."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        """Return it as people write it, `1/4`."""
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """What it adds to the name of its process, lock and sockets: `-1of4`; nothing for the whole."""
        return "" if self.is_whole else f"-{self.number}of{self.count}"

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    def has(self, native: str) -> bool:
        """True if the symbol with this native spelling is in this part."""
        return self.is_whole or shard_number(native, self.count) == self.number


WHOLE: Final = Shard()


def shard_number(native: str, count: int) -> int:
    """Return the number, from 1, of the shard that has a symbol."""
    return zlib.crc32(native.encode()) % count + 1


def parse(text: str) -> Shard:
    """Read `1/4`. Raises ValueError with what is wrong with it."""
    match = TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is no shard; write number/count, such as "1/4"')
    number, count = int(match[1]), int(match[2])
    if count > SHARDS_MAX:
        raise ValueError(f"{text!r}: an exchange has {SHARDS_MAX} shards at most")
    if number > count:
        raise ValueError(
            f"{text!r}: there is no shard {number} of {count}; they are 1/{count} to {count}/{count}"
        )
    return Shard(number, count)


def shards(count: int) -> tuple[Shard, ...]:
    """Return all parts of an exchange, in order."""
    return tuple(Shard(number, count) for number in range(1, count + 1))
