"""Each topic has one NATS subject, and each subject leads back to one topic."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.bridge import subjects
from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.kinds import KINDS

CASES = [
    (b"ticker.binance.BTC/USDT", "ticker.binance.BTC-USDT"),
    (wire.padded("ticker.binance.BTC/USDT"), "ticker.binance.BTC-USDT"),
    (b"status.binance", "status.binance"),
    (b"heartbeat.merger", "heartbeat.merger"),
    (b"ticker.x.A.B/USDT", "ticker.x.A%2EB-USDT"),
    (b"ticker.x.A B/USDT", "ticker.x.A%20B-USDT"),
    (b"ticker.x.*/USDT", "ticker.x.%2A-USDT"),
    (b"ticker.x.>", "ticker.x.%3E"),
    (b"ticker.x.$A/U", "ticker.x.%24A-U"),
    (b"ticker.x.A-B/U", "ticker.x.A%2DB-U"),
    (b"ticker.x.A%2DB/U", "ticker.x.A%252DB-U"),
    ("ticker.x.币/USDT".encode(), "ticker.x.%E5%B8%81-USDT"),
    (b"ticker.x.A\tB\r\n/U", "ticker.x.A%09B%0D%0A-U"),
    (b"status.bridge-nats", "status.bridge%2Dnats"),
]

words = st.text(min_size=1, max_size=12).filter(lambda word: "\0" not in word and "." not in word)
symbols = st.text(min_size=1, max_size=20).filter(lambda word: "\0" not in word)
topics = st.one_of(
    st.builds(lambda kind, exchange: f"{kind}.{exchange}".encode(), words, words),
    st.builds(lambda *parts: ".".join(parts).encode(), words, words, symbols),
)


@pytest.mark.parametrize(("topic", "subject"), CASES)
def test_the_subject_of_a_topic(topic, subject):
    assert subjects.subject_of(topic) == subject
    assert subjects.subject_of(topic, "md.eu") == f"md.eu.{subject}"
    assert subjects.topic_of(subject) == topic.rstrip(b"\0")
    assert subjects.topic_of(f"md.eu.{subject}", "md.eu") == topic.rstrip(b"\0")


@pytest.mark.long
@given(topics)
def test_nats_takes_every_subject_as_plain_words_and_it_leads_back(topic):
    subject = subjects.subject_of(topic)
    assert re.fullmatch(r"[A-Za-z0-9_%-]+(\.[A-Za-z0-9_%-]+){1,2}", subject)
    assert subjects.topic_of(subject) == topic


@given(topics, topics)
def test_two_topics_never_meet_in_one_subject(one, other):
    assert (one == other) == (subjects.subject_of(one) == subjects.subject_of(other))


@pytest.mark.parametrize(
    "topic", [b"", b"ticker", b".", b"ticker.", b"ticker..A/B", b".x.A/B", b"ticker.x.", b"a.\xff", b"\0"]
)
def test_what_is_no_topic_has_no_subject(topic):
    with pytest.raises(ValueError, match="topic"):
        subjects.subject_of(topic)


@given(st.one_of(st.text(), st.from_regex(r"[a-z%0-9A-F.-]{0,20}")))
def test_a_foreign_subject_is_refused_or_is_that_of_its_topic(subject):
    try:
        topic = subjects.topic_of(subject)
    except DecodeError:
        return
    assert subjects.subject_of(topic) == subject


@pytest.mark.parametrize(
    "subject", ["ticker.x.a%2", "ticker.x.%41", "ticker.x.%2e", "ticker.x.*", "ticker.>"]
)
def test_a_spelling_that_no_topic_has_is_refused(subject):
    with pytest.raises(DecodeError, match="no topic"):
        subjects.topic_of(subject)


def test_the_prefix_has_to_be_there():
    with pytest.raises(DecodeError):
        subjects.topic_of("ticker.x.A-B", "md")


def test_the_bridges_own_subject_is_no_topics():
    assert subjects.own_subject("md") == "md.status.bridge-nats"
    assert subjects.subject_of(b"status.bridge-nats") != subjects.own_subject()


def test_a_stream_has_all_that_is_published():
    kinds = [kind.name for kind in KINDS if kind.has_topics]
    assert subjects.stream_subjects() == [f"{name}.>" for name in kinds]
    assert {"ticker", "depth", "status"} <= set(kinds)
    assert subjects.stream_subjects("md.eu") == ["md.eu.>"]
