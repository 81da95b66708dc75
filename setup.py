"""The compiled tick path, which is optional: without a compiler the package is the same, and slower."""

from Cython.Build import cythonize
from setuptools import Extension, setup

extensions = cythonize([Extension("feedhandler.transport._tick", ["feedhandler/transport/_tick.pyx"])])
for extension in extensions:
    extension.optional = True  # cythonize() makes new ones, and forgets it

setup(ext_modules=extensions)
