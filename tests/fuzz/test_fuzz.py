"""A short part of the fuzz, without sanitizers: `make sanitize` plays more of it, and sees more."""

import pytest
import targets

ROUNDS = {"frames": 300, "streams": 30, "batches": 60, "sends": 60, "boards": 30}
SEED = 1


@pytest.mark.many
@pytest.mark.parametrize("target", targets.TARGETS)
def test_whatever_comes_is_taken_by_both_forms_alike(target):
    for number in range(ROUNDS[target]):
        targets.play(target, SEED, number)


def test_the_forms_are_compared():
    with pytest.raises(AssertionError, match="the forms differ in all"):
        targets.agree("all", [1, 2], "this")
    targets.agree("all", [{"a": 1}, {"a": 1}], "this")
