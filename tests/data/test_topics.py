"""Topics by prefix, and who is subscribed to them."""

import random

import pytest
from seeds import seeds

from feedhandler.data import wire
from feedhandler.data.topics import EMPTY_KEPT, Groups, Topics


def padded(name):
    return wire.padded(wire.topic(wire.TICKER, "binance", name))


def test_the_topics_under_a_prefix_come_in_order_whenever_they_were_added():
    topics = Topics()
    for name in ("B", "AC", "A"):
        topics.add(padded(name))
    assert topics.under(b"ticker.") == [padded("A"), padded("AC"), padded("B")]
    topics.add(padded("AB"))
    assert topics.under(b"ticker.binance.A") == [padded("A"), padded("AB"), padded("AC")]
    assert topics.under(b"ticker.binance.A\0") == [padded("A")]
    assert topics.under(b"") == topics.under(b"t")
    assert topics.under(b"ticker.kucoin.") == topics.under(b"u") == topics.under(bytes(100)) == []
    topics.clear()
    assert topics.under(b"") == []


def members(groups):
    return sorted({member for group in groups for member in group})


@pytest.mark.parametrize("seed", seeds(20))
def test_a_topic_has_whoever_is_subscribed_to_a_prefix_of_it_whatever_came_and_went(seed):
    rng = random.Random(seed)
    groups, subscribed, kept = Groups(), [], {}
    topics = [padded("".join(rng.choices("ABC", k=rng.randrange(5)))) for _ in range(30)]
    for _ in range(600):
        act = rng.random()
        if act < 0.3:
            topic = rng.choice(topics)
            kept[topic] = groups.find(topic)
        elif act < 0.6:
            topic = rng.choice(topics)
            each = (topic[: rng.randrange(45)], rng.randrange(5))
            if each not in subscribed:
                subscribed.append(each)
                groups.enter(*each)
        elif act < 0.9 and subscribed:
            groups.leave(*subscribed.pop(rng.randrange(len(subscribed))))
        elif act < 0.98:
            groups.tidy(rng.randrange(20))
        else:
            groups.forget()
            kept.clear()
        for topic, found in kept.items():
            assert found is groups.find(topic), "what was found stays current"
            assert members(found) == sorted({who for prefix, who in subscribed if topic.startswith(prefix)})
    while not groups.is_tidy:
        groups.tidy(1)
    for topic, found in kept.items():
        assert len(list(filter(None, found))) == len({p for p, _ in subscribed if topic.startswith(p)})
        assert sum(not group for group in found) <= EMPTY_KEPT


def test_one_more_subscriber_of_a_prefix_touches_no_topic_and_a_new_prefix_only_its_own():
    groups = Groups()
    for number in range(1000):
        groups.find(padded(f"S{number}"))
    assert groups.enter(b"", "first") == 1000
    assert groups.enter(b"", "second") == 0
    assert groups.enter(b"ticker.binance.S99", "third") == 11
    assert groups.enter(padded("S5"), "fourth") == 1
    assert groups.enter(b"status.", "fifth") == 0
    groups.leave(padded("S5"), "fourth")
    assert groups.enter(padded("S5"), "sixth") == 0, "who comes again finds what there was"


def test_a_prefix_longer_than_any_topic_is_in_nobodys_way():
    groups = Groups()
    found = groups.find(padded("A"))
    for size in range(wire.TOPIC_SIZE + 1, 1000):
        groups.enter(padded("A").ljust(size, b"\0"), "somebody")
        groups.leave(padded("A").ljust(size, b"\0"), "somebody")
    assert found == []
    assert groups.is_tidy
