"""feedhandler: crypto market data, from exchange WebSockets to ZeroMQ subscribers.

The modules of the hot path are Python that may be compiled (`setup.py`): an extension beside a `.py` is imported in
its place. Here is decided when the `.py` is taken all the same: where it was asked for, and in a source tree whose
extensions are older than what they were made of. It is one or the other for all of them.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

__version__ = "0.1.0"

PURE_ENV: Final = "FEEDHANDLER_PURE"  # to compare both, or to debug


class PythonFirst(importlib.abc.MetaPathFinder):
    """Finds the `.py` where an extension is beside it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        source = importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES
        for folder in path or ():
            spec = importlib.machinery.FileFinder(folder, source).find_spec(fullname)
            if spec is not None:
                return spec
        return None


def extensions(package: Path) -> list[Path]:
    """Return what was compiled of a package; what is left of a module that was moved does not count."""
    found = package.glob(f"**/*{importlib.machinery.EXTENSION_SUFFIXES[0]}")
    return sorted(path for path in found if sources_of(path))


def sources_of(extension: Path) -> list[Path]:
    """Return what an extension was made of, but for the `.pxd`s."""
    stem = extension.name.partition(".")[0]
    return [path for suffix in (".py", ".pyx") if (path := extension.with_name(stem + suffix)).exists()]


def is_older(package: Path) -> bool:
    """True if what was compiled is older than its source, as after `git pull`: make's own criterion.

    Always false of an installed package: nobody changes the source of one.
    """
    if not (package.parent / "setup.py").exists():
        return False
    made = extensions(package)
    sources = [*package.glob("**/*.pxd"), *(source for path in made for source in sources_of(path))]
    changed_ns = max((path.stat().st_mtime_ns for path in sources), default=0)
    return any(path.stat().st_mtime_ns < changed_ns for path in made)


_package: Final = Path(__file__).parent
IS_OLDER: Final = is_older(_package)
IS_COMPILED: Final = bool(extensions(_package)) and not IS_OLDER and not os.environ.get(PURE_ENV)
FORM: Final = "compiled tick path" if IS_COMPILED else "pure Python tick path"

if not IS_COMPILED:
    sys.meta_path.insert(0, PythonFirst())
