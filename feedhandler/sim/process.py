"""The simulated exchanges as one process: every exchange that the configuration calls simulated."""

import asyncio
import logging

import uvloop

from feedhandler.data.errors import EXIT_OK, ConfigError
from feedhandler.runtime.lifecycle import on_stop_signals
from feedhandler.runtime.settings import Config, ExchangeConfig, SimConfig
from feedhandler.runtime.upkeep import Upkeep
from feedhandler.sim.rhythm import Activity
from feedhandler.sim.server import SimServer, SimSettings, serve
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport.files import Lock
from feedhandler.transport.tasks import end_tasks

log = logging.getLogger(__name__)


async def _main(config: Config, lock: Lock) -> int:
    playing = servers(config)
    stop = asyncio.Event()
    on_stop_signals(stop.set, asyncio.get_running_loop())
    upkeep = asyncio.create_task(Upkeep(config, lock.look).run())
    upkeep.add_done_callback(lambda _: stop.set())
    try:
        await serve(playing, stop)
    except OSError as exc:
        raise ConfigError(
            f"{config.path}: a simulated exchange cannot listen: {exc.strerror or exc};"
            " stop what holds the port, or change ws_url and rest_url"
        ) from exc
    finally:
        await end_tasks([upkeep])
    if upkeep.done() and not upkeep.cancelled():
        upkeep.result()
    return EXIT_OK


def check(config: Config) -> None:
    """Raises ConfigError for an exchange that has no simulator."""
    for name in config.simulated():
        if name not in SIMULATED:
            raise ConfigError(
                f"{config.path}: exchanges.{name}.simulated: there is no simulator of {name}, but of"
                f" {', '.join(SIMULATED)}; if something else plays it, leave out [sim]"
            )


def servers(config: Config) -> list[SimServer]:
    """Return the exchanges to play, each with its addresses. Raises ConfigError."""
    check(config)
    sim = config.sim or SimConfig()
    settings = SimSettings(
        messages_per_s=sim.messages_per_s,
        activity=Activity(
            busiest_per_s=sim.busiest_per_s, busy_symbols=sim.busy_symbols, quietest_s=sim.quietest_s
        ),
        instruments=sim.instruments,
        seed=sim.seed,
    )
    return [
        SimServer(name, settings, ws_url=_ws_url(exchange), rest_url=exchange.rest_url)
        for name, exchange in config.simulated().items()
    ]


def _ws_url(exchange: ExchangeConfig) -> str:
    """Return where an exchange's socket is; where REST names it, that may be left to us: at REST's own port."""
    return exchange.ws_url or exchange.rest_url.replace("http", "ws", 1)


def run(config: Config) -> int:
    """Run the simulator; returns the exit status."""
    if not config.simulated():
        raise ConfigError(f"{config.path}: no exchange has simulated = true, so there is nothing to simulate")
    with Lock(config.run_dir, "sim") as lock:
        return uvloop.run(_main(config, lock))
