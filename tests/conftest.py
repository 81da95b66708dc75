"""Shared by all tests: time limits of hypothesis off, since nothing may depend on a machine's speed."""

import sys
from pathlib import Path

from hypothesis import settings

for folder in ("exchanges", "e2e", "gateway", "languages"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

settings.register_profile("feedhandler", deadline=None, derandomize=True)
settings.load_profile("feedhandler")
