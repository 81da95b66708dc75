"""The hot path, compiled, which is optional: without a compiler the package is the same, and slower.

Its modules are Python, with types in the `.pxd` beside each (Cython's augmentation). An extension is imported in
the place of the `.py` that it was made of, unless `feedhandler/__init__.py` says otherwise.
"""

import tempfile
from pathlib import Path
from typing import Final

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# All of them, or none: they take each other's types from the `.pxd`, which the Python form does not have.
COMPILED: Final = (
    "feedhandler/client/subscribed_books.py",
    "feedhandler/data/book.py",
    "feedhandler/data/contracts.py",
    "feedhandler/data/kept_book.py",
    "feedhandler/data/levels.py",
    "feedhandler/exchanges/arbitration.py",
    "feedhandler/exchanges/books.py",
    "feedhandler/exchanges/depth_state.py",
    "feedhandler/exchanges/full_book.py",
    "feedhandler/exchanges/state.py",
    "feedhandler/exchanges/trades.py",
    "feedhandler/feed/batch.py",
    "feedhandler/feed/tap.py",
    "feedhandler/recordings/carriers.py",
    "feedhandler/recordings/packing.py",
    "feedhandler/relay/relayed_books.py",
    "feedhandler/replay/merged.py",
    "feedhandler/replay/player.py",
    "feedhandler/transport/follower.py",
    "feedhandler/merger/step.py",
    "feedhandler/transport/cells.py",
    "feedhandler/transport/memory.pyx",
    "feedhandler/transport/loop.py",
    "feedhandler/transport/peer.py",
    "feedhandler/transport/outlet.py",
    "feedhandler/transport/links.py",
)
DIRECTIVES: Final = {
    "language_level": 3,
    "annotation_typing": False,  # types are those of the .pxd; what Python promises itself is mypy's
    "nonecheck": True,  # of an attribute that is None: an exception, and not memory that is somebody else's
    "auto_pickle": False,
}
# What runs for each record is together in memory, not between what runs once: sorted by name, functions that C
# calls (`__pyx_f_`) follow each other. A turn of the merger uses 21 pages of them, where it used 31; a process that
# sleeps between two turns finds few of them in the caches.
COMPILE: Final = ["-O2", "-ffunction-sections"]
LINK: Final = ["-Wl,--sort-section=name"]


class Build(build_ext):
    """Compiles what it can; where one module fails, none is left.

    C is made of the sources only here: pip runs this file three times to install, and builds in one of them.
    """

    def build_extensions(self) -> None:
        if self._has_compiler():
            made = cythonize(
                [Extension(each.name, each.sources) for each in self.extensions],
                compiler_directives=DIRECTIVES,
                force=True,  # Cython does not see every change of a .pxd, and half a minute is not much
            )
            sources = {each.name: each.sources for each in made}
            for extension in self.extensions:
                extension.sources = sources[extension.name]
            super().build_extensions()
        paths = [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        is_whole = all(path.exists() for path in paths)
        for path in paths:
            if is_whole:
                path.touch()  # up to date, also where there was nothing to do
            else:
                path.unlink(missing_ok=True)

    def _has_compiler(self) -> bool:
        """Whether C can be compiled here, with Python's headers: else there is no use in making any."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "empty.c")
            path.write_text("#include <Python.h>\n", encoding="utf-8")
            try:
                self.compiler.compile([str(path)], output_dir=folder)
            except CompileError as exc:
                self.warn(f"nothing is compiled: {exc}")
                return False
        return True


extensions = [
    Extension(
        name.partition(".")[0].replace("/", "."),
        [name],
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
        optional=True,
    )
    for name in COMPILED
]

setup(ext_modules=extensions, cmdclass={"build_ext": Build})
