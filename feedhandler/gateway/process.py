"""The gateway: control plane and window on the system, one process outside the tick path.

Wiring only. It subscribes to the merger like anybody else, and feeds read what is wanted from its files: when it is
killed, feeds and merger run on as they are.
"""

import asyncio
import functools
import logging
import os
import time
from typing import Final

import uvloop
from aiohttp import web

from feedhandler.data import wire
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.gateway import api, dashboard, health
from feedhandler.gateway.access import Access, token_of, token_path
from feedhandler.gateway.app import Parts, make_app
from feedhandler.gateway.control import ControlPlane
from feedhandler.gateway.events import EventLog
from feedhandler.gateway.history import History
from feedhandler.gateway.hours import UNKNOWN, Hours, is_of_a_symbol
from feedhandler.gateway.kept_accounts import Accounts, credentials_of
from feedhandler.gateway.listener import HttpListener
from feedhandler.gateway.market_data import MarketData
from feedhandler.gateway.metrics import Metrics
from feedhandler.gateway.openapi import description, document
from feedhandler.gateway.operations import routes
from feedhandler.gateway.screens import Screens
from feedhandler.gateway.screens import routes as screen_routes
from feedhandler.runtime.lifecycle import (
    END_S,
    end_within,
    keep_secrets_in_memory,
    on_stop_signals,
    settle,
    use_cpus,
)
from feedhandler.runtime.settings import API_TOKEN_ENV, Config
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.transport.files import Lock, read_wanted
from feedhandler.transport.tasks import END_TASKS_S, Failures, end_tasks

LOOK_EVERY_S: Final = 1.0  # at flags: 5,000 topics take some ms
CLOSE_ALL_S: Final = 3.0  # for requests under way, browsers and accounts, all at the same time
assert CLOSE_ALL_S + END_TASKS_S < END_S, "an end in order has its time"

log = logging.getLogger(__name__)


async def _main(config: Config, lock: Lock) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    on_stop_signals(stop.set, loop)
    token = token_of(config, os.environ)
    given = {name: credentials_of(os.environ, name) for name in config.exchanges}
    endpoint = (*config.merger.batches, *config.merger.ticks)[0]

    screens, history, events = Screens(lambda ticker: market_data.tick_of(ticker)), History(), EventLog()
    hours = Hours()

    def on_document(kind: int, exchange: str) -> None:
        if kind == wire.HEARTBEAT and market_data.heartbeat is not None:
            events.on_merger(market_data.heartbeat.started_ns, time.time_ns())
        if exchange not in config.exchanges:
            return
        if kind == wire.INSTRUMENTS:
            control.touch(exchange)
        elif kind == wire.STATUS:
            history.take(market_data.statuses[exchange], int(time.time()))
            events.on_status(market_data.statuses[exchange], time.time_ns())
            hours.on_status(market_data.statuses[exchange], market_data.symbols_of(exchange), time.time_ns())
            screens.on_status(exchange)

    def on_account(exchange: str) -> None:
        control.touch(exchange)
        screens.on_account(exchange)

    market_data = MarketData(loop, endpoint, screens.newest.take, screens.watched.take, on_document)
    failures = Failures()
    loop.set_exception_handler(failures.on_loop_exception)
    accounts = Accounts(config, on_account, failures)
    control = ControlPlane(config, market_data, accounts)
    parts = Parts(
        config=config,
        access=Access(config.gateway, token),
        market_data=market_data,
        history=history,
        hours=hours,
        events=events,
        accounts=accounts,
        control=control,
    )
    operations = api.operations(parts)
    metrics = Metrics(parts, screens)
    everything = [
        metrics.route(),
        *health.routes(parts),
        *routes(operations, parts),
        description(document(operations, config.exchanges, needs_token=not parts.access.is_open)),
        *screen_routes(screens, parts),
        *dashboard.routes(),
    ]
    app = make_app(parts, everything, metrics.middleware())

    async def say_goodbye(app: web.Application) -> None:
        await screens.close()

    app.on_shutdown.append(say_goodbye)
    listener = HttpListener(app)
    tasks = [
        asyncio.create_task(failures.endure(what, work))
        for what, work in (
            ("the merger's stream", market_data.run),
            ("the quality of data", functools.partial(_look_at_quality, parts)),
            ("what is held", control.run),
            ("browsers", functools.partial(screens.run, parts)),
            ("the accounts", accounts.run),
            ("files", Upkeep(config, lock.look).run),
        )
    ]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    try:
        await _listen(listener, config)
        where = API_TOKEN_ENV if os.environ.get(API_TOKEN_ENV) else token_path(config.run_dir)
        log.info("listening at %s; changes need the token in %s", config.gateway.url, where)
        log.info("wanted besides the configuration: %s", _besides(config))
        for name, credentials in given.items():
            if credentials is not None:
                await accounts.put(name, credentials)
        settle()
        await stop.wait()
        end_within(END_S, EXIT_FAILED)  # unless it was a signal, which came first
    finally:
        ends = [asyncio.create_task(work) for work in (listener.close(), accounts.close())]
        await asyncio.wait(ends, timeout=CLOSE_ALL_S)
        await end_tasks([*ends, *tasks])
        market_data.close()
    for task in (*ends, *tasks):
        if task.done() and not task.cancelled():
            task.result()  # a bug in our reasoning ends the process, with its traceback
    log.info("stopped")
    return EXIT_OK


async def _look_at_quality(parts: Parts) -> None:
    """Note states and flags as they are; for ever."""
    market_data = parts.market_data
    while True:
        is_up = market_data.is_merger_up
        states = {
            name: market_data.statuses[name].state if is_up else UNKNOWN
            for name in parts.config.exchanges
            if name in market_data.statuses
        }
        topics = market_data.follower.newest if is_up else ()
        flags = ((topic, market_data.flags_of(topic)) for topic in topics if is_of_a_symbol(topic))
        now_ns = time.time_ns()
        parts.hours.look(states, flags, now_ns)
        session = market_data.session
        if session:
            numbers = (
                (topic, loss.sequence)
                for topic, loss in market_data.follower.losses.items()
                if loss.session == session and is_of_a_symbol(topic)
            )
            parts.hours.on_numbers(session, numbers, now_ns)
        await asyncio.sleep(LOOK_EVERY_S)


def _besides(config: Config) -> str:
    """Return in words what is wanted besides the configuration, for each exchange."""
    found = {}
    for name, exchange in config.exchanges.items():
        try:
            found[name] = read_wanted(config.run_dir, name).besides(name, exchange.connect)
        except ConfigError as exc:
            found[name] = str(exc)
    return "; ".join(f"{name}: {text}" for name, text in found.items())


async def _listen(listener: HttpListener, config: Config) -> None:
    try:
        await listener.start(*config.gateway.address)
    except OSError as exc:
        raise ConfigError(
            f"{config.path}: gateway.http: cannot listen at {config.gateway.http}: {exc.strerror or exc};"
            " stop what holds it, or configure another one"
        ) from exc


def run(config: Config) -> int:
    """Run the gateway; returns the exit status."""
    keep_secrets_in_memory()
    with Lock(config.run_dir, "gateway") as lock:
        use_cpus(config.gateway.cpus, f"{config.path}: gateway.cpus")
        return uvloop.run(_main(config, lock))
