"""Records under way, until they are confirmed."""

from feedhandler.bridge.unconfirmed import Unconfirmed


def test_what_was_handed_over_is_confirmed_one_by_one_or_up_to_a_number():
    unconfirmed = Unconfirmed()
    numbers = [unconfirmed.add(b"x" * size) for size in range(1, 6)]
    assert (unconfirmed.size, len(unconfirmed), unconfirmed.number) == (15, 5, numbers[-1])
    unconfirmed.confirm(numbers[3])
    unconfirmed.confirm(numbers[3])
    unconfirmed.confirm_up_to(numbers[1])
    assert unconfirmed.take_all() == [b"x" * 3, b"x" * 5]
    assert (unconfirmed.size, len(unconfirmed)) == (0, 0)
