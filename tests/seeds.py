"""What is played again and again: the first seeds, and one exchange, before each commit; all in the whole suite."""

import pytest


def seeds(count, before_commit=3):
    """Return so many seeds, of which `make check` plays the first."""
    return first_of(range(count), before_commit)


def first_of(values, before_commit=1):
    """Return all of them, of which `make check` plays the first: exchanges, where what is tested knows none."""
    later = [pytest.param(value, marks=pytest.mark.many) for value in values[before_commit:]]
    return [*values[:before_commit], *later]
