"""What to do where the tick path is not compiled, or is older than its source: one line, for whoever starts all."""

import contextlib
import importlib.metadata
import json
import os
import shlex
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import feedhandler

TEXT: Final = (
    "the tick path is Python here, which costs more CPU; with a C compiler and Python's headers"
    " (Debian: apt install gcc python3-dev) {remedy}"
)
OLDER: Final = (
    "the tick path is Python here, which costs more CPU: it was compiled before its source was changed;"
    " {remedy}"
)


def advice() -> str:
    """Return how to have the tick path compiled; "" where it is, or where Python was chosen."""
    if feedhandler.IS_COMPILED or os.environ.get(feedhandler.PURE_ENV):
        return ""
    text = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it runs from its source, uninstalled
        text = importlib.metadata.distribution("feedhandler").read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    return (OLDER if feedhandler.IS_OLDER else TEXT).format(remedy=remedy(origin))


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
