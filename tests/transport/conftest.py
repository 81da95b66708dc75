import pytest
import twins
from ends import World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture(params=twins.FORMS)
def writes(request):
    """The classes of the hot path in one form, for who writes."""
    return twins.of(request.param)


@pytest.fixture(params=twins.FORMS)
def reads(request):
    """The same for who reads."""
    return twins.of(request.param)
