"""Topics in order, and who is subscribed to which: what a prefix concerns is found without a look at the rest.

Those who are subscribed to the same prefix are a group, and a topic has the groups of its prefixes. One more
subscriber of a prefix is an entry in its group; only a prefix that is new touches topics, and only its own. Pure.
"""

from bisect import bisect_left
from typing import Any, Final

from feedhandler.data import wire

EMPTY_KEPT: Final = 4  # groups without members
_AFTER: Final = b"\xff" * (wire.TOPIC_SIZE + 1)  # behind a prefix: after all topics that begin with it


class Topics:
    """Topics, padded, in order."""

    def __init__(self) -> None:
        self._sorted: list[bytes] = []
        self._new: list[bytes] = []  # not sorted in yet

    def add(self, topic: bytes) -> None:
        """Add a topic that is not there yet."""
        self._new.append(topic)

    def clear(self) -> None:
        """Forget all."""
        self._sorted, self._new = [], []

    def under(self, prefix: bytes) -> list[bytes]:
        """Return the topics that begin with a prefix, in order."""
        if self._new:
            self._sorted += self._new
            self._sorted.sort()  # two runs, one of them long: merged in one pass
            self._new = []
        first = bisect_left(self._sorted, prefix)
        return self._sorted[first : bisect_left(self._sorted, prefix + _AFTER, first)]


class Groups:
    """Who is subscribed to what, by prefix and by topic.

    by_topic has the groups of each topic that was looked up, changed in place when subscriptions change: keep them
    until `forget`. A subscriber with several prefixes is in several groups of a topic. A group without members
    stays until `tidy`, and the last few stay for good: one that subscribes and leaves in a loop is not to cost a
    look at all its topics each time.
    """

    def __init__(self) -> None:
        self.by_topic: dict[bytes, list[list[Any]]] = {}
        self._topics = Topics()  # those in by_topic
        self._groups: dict[bytes, list[Any]] = {}  # by prefix
        self._sizes: dict[int, int] = {}  # how many of the prefixes have each length
        self._left: dict[bytes, None] = {}  # prefixes whose groups are empty
        self._gone: list[Any] = []  # such a group, of a prefix that is forgotten,
        self._touched: list[bytes] = []  # and topics that may still have it

    @property
    def is_tidy(self) -> bool:
        """True if `tidy` has nothing to do."""
        return len(self._left) <= EMPTY_KEPT and not self._touched

    def find(self, topic: bytes) -> list[list[Any]]:
        """Return the groups of a topic, padded."""
        groups = self.by_topic.get(topic)
        if groups is None:
            found = (self._groups.get(topic[:size]) for size in self._sizes if size <= len(topic))
            groups = self.by_topic[topic] = [group for group in found if group is not None]
            self._topics.add(topic)
        return groups

    def enter(self, prefix: bytes, member: Any) -> int:
        """Put somebody into the group of a prefix; returns how many topics were touched by that."""
        if len(prefix) > wire.TOPIC_SIZE:
            return 0  # no topic begins with it
        self._left.pop(prefix, None)
        group = self._groups.get(prefix)
        if group is not None:
            group.append(member)
            return 0
        group = self._groups[prefix] = [member]
        self._sizes[len(prefix)] = self._sizes.get(len(prefix), 0) + 1
        touched = self._topics.under(prefix)
        for topic in touched:
            self.by_topic[topic].append(group)
        return len(touched)

    def leave(self, prefix: bytes, member: Any) -> None:
        """Take somebody out of the group of a prefix."""
        if (group := self._groups.get(prefix)) is not None:
            group.remove(member)
            if not group:
                self._left[prefix] = None

    def tidy(self, steps: int) -> None:
        """Forget groups that everybody has left, as far as so many looks at a topic or prefix go."""
        for _ in range(steps):
            if self._touched:
                groups = self.by_topic[self._touched.pop()]
                groups[:] = [group for group in groups if group is not self._gone]
            elif len(self._left) > EMPTY_KEPT:
                prefix = next(iter(self._left))  # the one that has been empty for longest
                del self._left[prefix]
                self._gone = self._groups.pop(prefix)
                self._touched = self._topics.under(prefix)
                self._sizes[len(prefix)] -= 1
                if not self._sizes[len(prefix)]:
                    del self._sizes[len(prefix)]
            else:
                return

    def forget(self) -> None:
        """Forget all topics; groups that were found for them change no more."""
        self.by_topic.clear()
        self._topics.clear()
        self._touched = []


def symbol_in(topic: bytes) -> str:
    """Return the symbol in a padded topic: the exchange's in a native one."""
    return topic.rstrip(b"\0").decode(errors="replace").split(".", 2)[2]
