"""Refusals for good are known by their words, whichever exchange sends them, and shown as one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.data.errors import ProtocolError
from feedhandler.data.refusal import FINAL_S, PAGE_SIZE_READ, WORDS_SIZE_MAX, first_words, is_of_a_region
from feedhandler.exchanges import EXCHANGES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain\r\n  text\t", "plain text"),
        (
            "<!DOCTYPE html><title>451</title><script>var x = '<b>';</script><p>Not &lt;here&gt;</p>",
            "451 Not <here>",
        ),
        ("<p>cut in the <scri", "cut in the"),
        ("<style>never ended {", ""),
        ('{"code":0,"msg":"a < b"}', '{"code":0,"msg":"a < b"}'),
        ("\x1b[31mred\u202e", "[31mred"),
    ],
)
def test_a_page_is_what_people_see_of_it(text, words):
    assert first_words(text) == words


@given(st.text(), st.sampled_from(["", "<", "<script>", "<!--"]))
def test_first_words_are_one_printable_line_whatever_comes(text, head):
    words = first_words(head + text)
    assert not words or words.isprintable()
    assert len(words) <= WORDS_SIZE_MAX + 1


def test_only_the_beginning_of_a_page_is_read():
    assert not is_of_a_region("x" * PAGE_SIZE_READ + "country")


def test_an_answer_that_refuses_a_country_is_not_asked_for_again_for_minutes():
    body = b'{"code":"400302","msg":"Our services are unavailable; please use a non-restricted country or region"}'
    with pytest.raises(
        ProtocolError, match=r"\(code 400302\); the exchange does not serve the country"
    ) as refused:
        EXCHANGES["kucoin"].main().endpoint("", body, "id")
    assert refused.value.retry_after_s == FINAL_S


def test_another_refusal_is_asked_again_as_usual():
    with pytest.raises(ProtocolError, match=r"system busy \(code 900001\)$") as refused:
        EXCHANGES["kucoin"].main().endpoint("", b'{"code":"900001","msg":"system busy"}', "id")
    assert refused.value.retry_after_s == 0
