"""What exports may be; the first of each is the default."""

from typing import Final

FORMATS: Final = ("parquet", "hftbacktest", "tardis")
BOOKS: Final = ("levels", "depth")
