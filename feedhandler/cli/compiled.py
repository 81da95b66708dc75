"""What to do where the tick path is not compiled, or is older than its source: one line, for whoever starts all."""

import contextlib
import importlib.metadata
import json
import os
import shlex
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from feedhandler.transport import tick

TEXT: Final = (
    "the tick path is Python here, which costs more CPU; with a C compiler and Python's headers"
    " (Debian: apt install gcc python3-dev) {remedy}"
)
OLDER: Final = "the tick path was compiled before its source was changed, and may not fit the rest; {remedy}"
SOURCE: Final = Path(tick.__file__).with_name("_tick.pyx")


def advice() -> str:
    """Return how to have the tick path compiled; "" where it is, or where Python was asked for."""
    if os.environ.get(tick.PURE_ENV):
        return ""
    text = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it runs from its source, uninstalled
        text = importlib.metadata.distribution("feedhandler").read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    if not tick.IS_COMPILED:
        return TEXT.format(remedy=remedy(origin))
    if origin.get("dir_info", {}).get("editable") and is_older(SOURCE):
        return OLDER.format(remedy=remedy(origin))
    return ""


def is_older(source: Path) -> bool:
    """True if what was compiled of a source is older than it, as after `git pull`: make's own criterion."""
    made = max((path.stat().st_mtime_ns for path in source.parent.glob(f"{source.stem}.*.so")), default=None)
    return made is not None and source.exists() and made < source.stat().st_mtime_ns


def remedy(origin: dict[str, Any]) -> str:
    """Return what compiles it, given where it was installed from (PEP 610; {} if that is not known)."""
    url = str(origin.get("url", ""))
    path = unquote(urlsplit(url).path) if url.startswith("file:") else ""
    if origin.get("dir_info", {}).get("editable"):
        return f"the next `make -C {shlex.quote(path)} run` compiles it"
    if url.endswith(".whl") or not url:
        return "its wheel is to be built again"
    vcs = origin.get("vcs_info")
    source = f"feedhandler @ {vcs['vcs']}+{url}" if vcs else path or url
    command = f"pip install --force-reinstall --no-deps --no-cache-dir {shlex.quote(source)}"
    return f"`{command}` compiles it"
