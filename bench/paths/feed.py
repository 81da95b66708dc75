"""feedhandler's feed of Binance, with a REST budget that does not let a bench wait for the bases of its books.

    exchange ══WS══▶ this ══▶ merger

With the exchange's own limit a hundred books take three minutes to begin, and five hundred a quarter of an hour.

    python -m bench.paths.feed binance -c CONFIG
"""

import sys

from feedhandler.cli.main import main
from feedhandler.exchanges.binance import BinanceSpot

WEIGHT_PER_MINUTE = 10**9

if __name__ == "__main__":
    BinanceSpot.rest_limit = (WEIGHT_PER_MINUTE, 60.0)
    sys.exit(main(["feed", *sys.argv[1:]]))
