import pytest
import twins

from feedhandler.transport import tick


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/ticks.ipc"


@pytest.fixture(params=twins.KINDS)
def sockets(request, monkeypatch):
    """Subscribers of the test are made of these classes: in Python, or their compiled twins."""
    kinds = twins.of(request.param)
    for name in ("Downlink", "Loop"):
        monkeypatch.setattr(tick, name, getattr(kinds, name))
    return kinds
