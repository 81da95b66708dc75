"""Shared by all tests: time limits of hypothesis off, since nothing may depend on a machine's speed."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "exchanges"))

settings.register_profile("feedhandler", deadline=None, derandomize=True)
settings.load_profile("feedhandler")
