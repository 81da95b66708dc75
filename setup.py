"""The hot path, compiled, which is optional: without a compiler the package is the same, and slower.

Its modules are Python, with types in the `.pxd` beside each (Cython's augmentation). An extension is imported in
the place of the `.py` that it was made of, unless `feedhandler/__init__.py` says otherwise.
"""

from pathlib import Path
from typing import Final

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# All of them, or none: they take each other's types from the `.pxd`, which the Python form does not have.
COMPILED: Final = (
    "feedhandler/data/contracts.py",
    "feedhandler/data/levels.py",
    "feedhandler/exchanges/arbitration.py",
    "feedhandler/exchanges/depth_state.py",
    "feedhandler/exchanges/state.py",
    "feedhandler/feed/batch.py",
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


class Build(build_ext):
    """Compiles what it can; where one module fails, none is left."""

    def build_extensions(self) -> None:
        super().build_extensions()
        made = [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        is_whole = all(path.exists() for path in made)
        for path in made:
            if is_whole:
                path.touch()  # up to date, also where there was nothing to do
            else:
                path.unlink(missing_ok=True)


extensions = cythonize(
    [
        Extension(name.partition(".")[0].replace("/", "."), [name], extra_compile_args=["-O3"])
        for name in COMPILED
    ],
    compiler_directives=DIRECTIVES,
    force=True,  # Cython does not see every change of a .pxd, and half a minute is not much
)
for extension in extensions:
    extension.optional = True  # cythonize() makes new ones, and forgets it

setup(ext_modules=extensions, cmdclass={"build_ext": Build})
