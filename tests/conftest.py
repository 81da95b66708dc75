"""Shared by all tests: time limits of hypothesis off, since nothing may depend on a machine's speed."""

import logging
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for folder in ("exchanges", "e2e", "gateway", "languages", "transport"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

settings.register_profile(
    "feedhandler", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("feedhandler")


@pytest.fixture(autouse=True)
def _log_everything_again():
    """What one test has had logged is logged for the next one as well."""
    for each in logging.getLogger("feedhandler.transport.zmtp").filters:
        each.forget()
