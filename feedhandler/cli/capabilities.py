"""`feedhandler capabilities`: what exchanges offer, as their own files say; the tables of docs/exchanges.md."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from feedhandler.cli.arguments import Commands, add_exchange, bare_command
from feedhandler.data.errors import EXIT_OK, ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Capability, Exchange, Market

if TYPE_CHECKING:
    from rich.table import Table

HEADS: Final = ("kind", "channels", "how often", "how gaps are found", "what cannot be proven")
WIDTH: Final = 120  # of a line
MARKED: Final = re.compile(r"(<!-- capabilities: make capabilities -->\n).*?(<!-- end -->)", re.DOTALL)


def add(commands: Commands) -> None:
    """Add the command of this module."""
    parser = bare_command(
        commands,
        "capabilities",
        _capabilities,
        "what exchanges offer: channels, how often, how gaps are found, what cannot be proven",
    )
    add_exchange(parser, nargs="?")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list, one object for each market and kind")
    form.add_argument("--markdown", metavar="FILE", help="put the tables into a page, between its marks")


def _capabilities(arguments: argparse.Namespace) -> int:
    named = arguments.exchange
    exchanges = [EXCHANGES[named]] if named else list(EXCHANGES.values())
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(rows(exchanges))).decode())
    elif arguments.markdown:
        path = Path(arguments.markdown)
        try:
            path.write_text(page(path.read_text(encoding="utf-8"), exchanges), encoding="utf-8")
        except (OSError, UnicodeDecodeError, ConfigError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise ConfigError(f"{path}: {reason}") from exc
    else:
        from feedhandler.cli import view  # here: else each process would load what draws

        print("\n\n".join(view.plain(_table(market), WIDTH) for market in _markets(exchanges)))
    return EXIT_OK


def rows(exchanges: list[Exchange]) -> list[dict[str, object]]:
    """Return all that is offered, an object for each exchange, market and kind."""
    return [
        {"exchange": market.exchange, "market": market.name, "kind": kind} | msgspec.structs.asdict(offered)
        for market in _markets(exchanges)
        for kind, offered in _offered(market)
    ]


def page(text: str, exchanges: list[Exchange]) -> str:
    """Return a page with the tables between its marks. Raises ConfigError if it has none."""
    parts = []
    for market in _markets(exchanges):
        lines = [f"{market.exchange}, {market.name}:", "", _row(HEADS), _row(["---"] * len(HEADS))]
        for kind, offered in _offered(market):
            channels = ", ".join(f"`{channel}`" for channel in offered.channels)
            lines.append(_row([f"`{kind}`", channels, _pace(offered), offered.gaps, offered.unproven]))
        parts.append("\n".join(lines))
    if MARKED.search(text) is None:
        raise ConfigError("it has no marks between which the tables stand; docs/exchanges.md has them")
    return MARKED.sub(
        lambda match: "\n".join([match[1], *"\n\n".join(parts).splitlines(), "", match[2]]), text
    )


def _markets(exchanges: list[Exchange]) -> Iterator[type[Market]]:
    return (market for exchange in exchanges for market in exchange.markets)


def _offered(market: type[Market]) -> list[tuple[str, Capability]]:
    """Return what its file says of each kind; channels without what only divides them from a symbol."""
    return [
        (kind, msgspec.structs.replace(offered, channels=tuple(c.rstrip(".:") for c in offered.channels)))
        for kind in market.kinds
        if (offered := market.capabilities.get(kind)) is not None
    ]


def _pace(offered: Capability) -> str:
    return f"{offered.pace}; left out: {offered.left_out}" if offered.left_out else offered.pace


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(market: type[Market]) -> "Table":
    from rich.table import Table

    table = Table(
        title=f"{market.exchange}, {market.name}", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    for head, share in zip(HEADS, (0, 0, 3, 3, 3), strict=True):
        table.add_column(head, ratio=share or None, overflow="fold", no_wrap=not share)
    for kind, offered in _offered(market):
        table.add_row(kind, "\n".join(offered.channels), _pace(offered), offered.gaps, offered.unproven)
    return table
