"""The registry: one line an exchange."""

from feedhandler.exchanges.base import Exchange
from feedhandler.exchanges.binance import Binance
from feedhandler.exchanges.bybit import Bybit
from feedhandler.exchanges.kucoin import KuCoin

EXCHANGES: dict[str, type[Exchange]] = {e.name: e for e in (Binance, KuCoin, Bybit)}
