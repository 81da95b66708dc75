import pytest
import twins
from ends import World


@pytest.fixture(params=twins.KINDS)
def sockets(request):
    """What has the sockets: in Python, or their compiled twins."""
    return twins.of(request.param)


@pytest.fixture
def world(tmp_path, sockets):
    world = World(tmp_path, sockets)
    yield world
    world.close()
