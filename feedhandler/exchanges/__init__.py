"""The registry: one line an exchange, and one for its private side."""

from feedhandler.exchanges.account import Account
from feedhandler.exchanges.base import Exchange
from feedhandler.exchanges.binance import Binance, BinanceAccount
from feedhandler.exchanges.bybit import Bybit, BybitAccount
from feedhandler.exchanges.kucoin import KuCoin, KuCoinAccount

EXCHANGES: dict[str, type[Exchange]] = {e.name: e for e in (Binance, KuCoin, Bybit)}
ACCOUNTS: dict[str, type[Account]] = {a.name: a for a in (BinanceAccount, KuCoinAccount, BybitAccount)}
