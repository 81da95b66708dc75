"""Refusals that no patience ends, and the exchange's text with them, for people. Pure, and of no exchange."""

import html
import re
from typing import Final

FINAL_S: Final = 600.0  # before the next request after a final refusal: somebody may have changed something

# In an exchange's words, in small letters: it refuses a country, and no list of a key's will help.
OF_A_REGION: Final = ("country", "your region", "jurisdiction", "restricted location", "your location")
REGION_REMEDY: Final = (
    "the exchange does not serve the country of this machine's address, and its terms of use tell which it does; if"
    " it has hosts of its own for yours, rest_url and ws_url name them; `feedhandler disconnect EXCHANGE` ends the"
    " tries"
)
PAGE_SIZE_READ: Final = 4096  # characters of a page, in search of why it was sent
WORDS_SIZE_MAX: Final = 160
_UNSEEN: Final = re.compile(
    r"<(script|style)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)|<[^>]*(>|$)", re.DOTALL | re.IGNORECASE
)


def is_of_a_region(text: str) -> bool:
    """Whether an exchange refuses a country."""
    head = " ".join(text[:PAGE_SIZE_READ].lower().split())
    return any(word in head for word in OF_A_REGION)


def first_words(text: str) -> str:
    """Return the beginning of a text as one printable line; of a page, what people see of it."""
    text = text[:PAGE_SIZE_READ]
    if text.lstrip().startswith("<"):
        text = html.unescape(_UNSEEN.sub(" ", text))
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= WORDS_SIZE_MAX else f"{line[:WORDS_SIZE_MAX]}…"
