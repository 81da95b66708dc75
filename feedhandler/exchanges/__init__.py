"""The registry: one line an exchange."""

from feedhandler.exchanges.base import Exchange
from feedhandler.exchanges.binance import BINANCE
from feedhandler.exchanges.bybit import BYBIT
from feedhandler.exchanges.kucoin import KUCOIN
from feedhandler.exchanges.okx import OKX

EXCHANGES: dict[str, Exchange] = {e.name: e for e in (BINANCE, KUCOIN, BYBIT, OKX)}
