"""What accounts hold, and what is to be watched of it: one line an exchange. An exchange may have none."""

from feedhandler.accounts.adapter import Account
from feedhandler.accounts.binance import BinanceAccount
from feedhandler.accounts.bybit import BybitAccount
from feedhandler.accounts.kucoin import KuCoinAccount

ACCOUNTS: dict[str, type[Account]] = {a.name: a for a in (BinanceAccount, KuCoinAccount, BybitAccount)}
