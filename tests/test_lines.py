"""What an exchange costs is counted as it is said."""

import lines
import pytest

from feedhandler.exchanges import EXCHANGES

TEXT = '''"""A file.

Of two markets.
"""

import math  # used by both

SIZE = 3
RATE = (
    1,  # each second

    2,
)


def of_both():
    return math.inf


class Spot:
    """One."""

    limit = SIZE
    every = of_both()


class LinearThing:
    # what it is
    limit = RATE
    text = """
    kept
    """
    every = of_both()


MARKETS = (Spot, LinearThing)
'''


def test_code_is_neither_blank_nor_comment_nor_docstring():
    found = [TEXT.splitlines()[number - 1].strip() for number in sorted(lines.code_lines(TEXT))]
    assert found == [
        *("import math  # used by both", "SIZE = 3", "RATE = (", "1,  # each second", "2,", ")"),
        *("def of_both():", "return math.inf", "class Spot:", "limit = SIZE", "every = of_both()"),
        *("class LinearThing:", "limit = RATE", 'text = """', "kept", '"""', "every = of_both()"),
        "MARKETS = (Spot, LinearThing)",
    ]


def test_a_market_has_what_it_alone_uses(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(TEXT)
    assert lines.only_of(path, "linear").code == 10, "its class, and the rate"
    assert lines.only_of(path, "inverse") == lines.Lines()


@pytest.mark.long
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_each_exchange_has_lines_in_all_parts_that_it_must_have(exchange):
    found = lines.counted(exchange, "")
    for part in ("adapter", "simulator", "tables of frames", "frames"):
        assert 100 < found[part].code < found[part].all or part == "frames", part
    for market in EXCHANGES[exchange].markets[1:]:
        assert 100 < lines.counted(exchange, market.name)["adapter"].code < found["adapter"].code / 2
    named = list(lines.elsewhere(exchange))
    assert {str(path) for path, _, _ in named} >= {"feedhandler/exchanges/__init__.py"}
    assert not {path for path, _, _ in named if path.name == f"{exchange}.py"}
