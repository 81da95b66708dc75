"""A gateway's parts without a stream: the test is the stream."""

import asyncio
import time

from feedhandler.data.status import Heartbeat
from feedhandler.gateway.access import Access
from feedhandler.gateway.app import Parts
from feedhandler.gateway.control import ControlPlane
from feedhandler.gateway.events import EventLog
from feedhandler.gateway.history import History
from feedhandler.gateway.hours import Hours
from feedhandler.gateway.kept_accounts import Accounts
from feedhandler.gateway.market_data import MarketData
from feedhandler.gateway.screens import Screens
from feedhandler.runtime import config

TOKEN = "0123456789abcdef-token"


EXCHANGES = "[exchanges.binance]\n[exchanges.bybit]\n"


def make(tmp_path, gateway="", host="127.0.0.1", exchanges=EXCHANGES):
    """Return parts and screens; to be called on a running loop."""
    text = f'run_dir = "{tmp_path}"\n{exchanges}[gateway]\nhttp = "{host}:8080"\n'
    settings = config.parse(text + gateway, "test.toml")
    screens = Screens(lambda ticker: market_data.tick_of(ticker))
    nowhere = f"ipc://{tmp_path}/none.ipc"
    market_data = MarketData(
        asyncio.get_running_loop(), nowhere, screens.newest.take, screens.watched.take, lambda *_: None
    )
    accounts = Accounts(settings, screens.on_account)
    parts = Parts(
        config=settings,
        access=Access(settings.gateway, TOKEN),
        market_data=market_data,
        history=History(),
        hours=Hours(),
        events=EventLog(),
        accounts=accounts,
        control=ControlPlane(settings, market_data, accounts),
    )
    return parts, screens


def beat(parts):
    """The merger says that it lives."""
    parts.market_data.heartbeat = Heartbeat(
        pid=1,
        started_ns=1,
        topics=1,
        records=1,
        records_per_s=1.0,
        exchanges=dict.fromkeys(parts.config.exchanges, "live"),
    )
    parts.market_data.heartbeat_mono = time.monotonic()
