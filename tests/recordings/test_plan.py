"""Which answers are pages of an instrument list, and which of them whoever begins in the middle needs."""

import pytest

from feedhandler.exchanges import EXCHANGES
from feedhandler.recordings.plan import KeptLists, Plan, PlannedMarket

MARKETS = [(exchange.name, market) for exchange in EXCHANGES.values() for market in exchange.markets]
FIRST = "https://x/list?of=linear&limit=9"


def planned(**urls):
    markets = [PlannedMarket(name=name, prefix="", instruments_url=url) for name, url in urls.items()]
    return Plan(exchange="x", session_ns=1, markets=markets)


@pytest.mark.parametrize(
    ("url", "is_page"),
    [
        (FIRST, True),
        (f"{FIRST}&cursor=a%2Cb", True),
        ("https://x/list?limit=9&status=PreLaunch&of=linear", True),
        ("https://x/list?of=spot&limit=9", False),
        ("https://x/list", False),
        ("https://x/list/1?of=linear&limit=9", False),
        ("https://y/list?of=linear&limit=9", False),
    ],
)
def test_a_page_says_all_that_the_first_one_does(url, is_page):
    assert planned(linear=FIRST).list_of(url) == (FIRST if is_page else "")


def test_pages_are_of_the_list_of_their_own_market():
    plan = planned(**{f"{name}{m.name}": m.rest_url + m.instruments_request.path for name, m in MARKETS})
    for _, market in MARKETS:
        url = market.rest_url + market.instruments_request.path
        assert plan.list_of(url) == url
        assert plan.list_of(f"{url}{'&' if '?' in url else '?'}cursor=7") == url


def test_a_list_is_kept_page_by_page_until_the_next_one_has_as_many():
    kept, plan = KeptLists(), planned(spot="https://x/spot", linear=FIRST)

    def take(*pages):
        for page in pages:
            kept.take(plan, FIRST if page.endswith("1") else f"{FIRST}&cursor={page}", page)

    kept.take(plan, "https://x/spot", "spot")
    kept.take(plan, "https://x/time", "time")
    take("a1", "a2", "a3")
    assert kept.pages == ["spot", "a1", "a2", "a3"]
    take("b1", "b2")
    assert kept.pages == ["spot", "a1", "a2", "a3", "b1", "b2"], "it may come to nothing"
    take("b3")
    assert kept.pages == ["spot", "b1", "b2", "b3"]
    take("c1")
    take("d1")
    assert kept.pages == ["spot", "b1", "b2", "b3", "d1"], "what came to nothing is forgotten"
    kept.take(plan, "https://x/spot", "newer")
    assert kept.pages == ["newer", "b1", "b2", "b3", "d1"]
    kept.take(None, FIRST, "of an unknown plan")
    assert len(kept.pages) == 5
    kept.clear()
    assert kept.pages == []
