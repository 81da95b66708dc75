"""How often an address may ask."""

from feedhandler.gateway.rates import ADDRESSES_MAX, Rates


def test_a_bucket_empties_and_fills_up_again_to_its_size_and_no_further():
    rates = Rates(2.0, 3.0)
    assert [rates.take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rates.take("a", 100.5) == 0.0
    assert [rates.take("a", 1000.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_addresses_are_counted_apart_and_who_asked_long_ago_is_forgotten():
    rates = Rates(1.0, 1.0)
    assert [rates.take("a", 0.0), rates.take("b", 0.0)] == [0.0, 0.0]
    assert rates.take("a", 0.0) > 0
    for number in range(ADDRESSES_MAX):
        rates.take(number, 0.0)
    assert rates.take("a", 0.0) == 0.0
