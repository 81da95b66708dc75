"""What takes long to import, for tests: each worker collects all of them, and few run those that use it."""

import importlib
from typing import Any


class Lazily:
    """A module that is imported when something public of it is looked up; pytest looks up more of all it finds."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


duckdb, pandas, polars, pyarrow = map(Lazily, ("duckdb", "pandas", "polars", "pyarrow"))
parquet = Lazily("pyarrow.parquet")
research = Lazily("feedhandler.research")
