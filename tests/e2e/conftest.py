"""One stack per test; what a test started is ended, and its logs are shown if it failed."""

import pytest
from harness import Stack


def pytest_collection_modifyitems(items):
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def stack(tmp_path):
    stacks = []

    def make(**settings):
        stacks.append(Stack(tmp_path, **settings))
        return stacks[-1]

    yield make
    for made in stacks:
        made.close()
    for path in tmp_path.rglob("*.log"):
        print(f"--- {path.name}\n{path.read_text(encoding='utf-8', errors='replace')[-3000:]}")
