"""Seeds of what is played at random: the first few before each commit, all of them in the whole suite."""

import pytest


def seeds(count, before_commit=5):
    """Return so many seeds, of which `make check` plays the first."""
    later = [pytest.param(seed, marks=pytest.mark.many) for seed in range(before_commit, count)]
    return [*range(before_commit), *later]
