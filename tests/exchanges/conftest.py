"""Every test here runs over the state in Python, and over its compiled twin."""

import pytest
import table
import twins

from feedhandler.exchanges.base import State


@pytest.fixture(params=twins.KINDS, autouse=True, scope="module")
def make_state(request):
    """Say which state `table.make` passes to an exchange."""
    table.make_state = twins.of(request.param).State
    yield
    table.make_state = State
