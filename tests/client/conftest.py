import pytest


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/ticks.ipc"
