"""The supervisor's configuration, for the demo as for production: one program per process.

`conf/supervisord.conf` is `render` applied to `conf/live.toml`; a test proves that it is current.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.config import NATS_ENV, SECRETS, Config
from feedhandler.errors import ConfigError
from feedhandler.process.runtime import END_S, SUPERVISED_ENV
from feedhandler.shard import shards
from feedhandler.transport.files import feed_name

# A process that ends before START_S is started again after 1 s, 2 s, 3 s, …; one that ran longer, at once.
START_S: Final = 1
START_TRIES: Final = 1_000_000  # an outage of any length heals without an operator
STOP_S: Final = 5
assert STOP_S > END_S, "a process ends by itself before it is killed"
LOG_SIZE_MB: Final = 10
LOG_COUNT: Final = 5
GATEWAY: Final = "gateway"
BRIDGE: Final = "bridge-nats"
COMMENT: Final = re.compile(r"\s[;#]")
OWN_SECRETS: Final = {GATEWAY: SECRETS, BRIDGE: NATS_ENV}


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are, as the supervisor is to see them: `escaped`, since % starts an expansion there."""

    command: str  # the `feedhandler` program
    config: str
    directory: str  # working directory: relative addresses and paths of the configuration start here
    run_dir: str
    has_control: bool  # listen for supervisorctl


def render(config: Config, layout: Layout) -> str:
    """Return the text of a supervisord configuration that runs everything `config` names."""
    programs = [
        (name, arguments, 30)
        for exchange, settings in config.exchanges.items()
        if not settings.elsewhere
        for name, arguments in feed_programs(config, exchange)
    ]
    if not config.is_merger_elsewhere:  # else this host has feeds and nothing else
        programs.insert(0, ("merger", "merger", 20))
        programs += [("relay", "relay", 40), (GATEWAY, GATEWAY, 40)]
        if config.nats is not None:
            programs.append((BRIDGE, "bridge nats", 50))
    if config.sim is not None:
        programs.insert(0, ("sim", "sim", 10))
    control = [_control(layout)] if layout.has_control else []
    return "\n".join([_head(layout), *control, *(_program(layout, *program) for program in programs)])


def feed_programs(config: Config, *exchanges: str) -> Iterator[tuple[str, str]]:
    """Yield the feed processes of these exchanges, of all if none is named: name and arguments of each."""
    for exchange in exchanges or config.exchanges:
        for shard in shards(config.exchange(exchange).shards):
            yield (
                feed_name(exchange, shard),
                f"feed {exchange}" + ("" if shard.is_whole else f" --shard {shard}"),
            )


def log_dir(run_dir: str) -> Path:
    """Return where the processes' logs are."""
    return Path(run_dir) / "log"


def _head(layout: Layout) -> str:
    run = layout.run_dir
    return f"""\
; Written by `feedhandler supervisord -c {layout.config}`. Start with `make prod`.

[supervisord]
nodaemon = false
umask = 077
directory = {layout.directory}
pidfile = {run}/supervisord.pid
logfile = {run}/log/supervisord.log
logfile_maxbytes = {LOG_SIZE_MB}MB
logfile_backups = {LOG_COUNT}
environment = {SUPERVISED_ENV}="1"
"""


def _control(layout: Layout) -> str:
    run = layout.run_dir
    return f"""\
[unix_http_server]
file = {run}/supervisor.sock
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{run}/supervisor.sock
"""


def _program(layout: Layout, name: str, arguments: str, priority: int) -> str:
    # Restarted whatever the exit status: also a wrong configuration may be mended meanwhile.
    # The supervisor hands its environment on; secrets are for those who need them.
    own = OWN_SECRETS.get(name, ())
    blanks = ",".join(f'{variable}=""' for variable in (*SECRETS, *NATS_ENV) if variable not in own)
    return f"""\
[program:{name}]
command = {layout.command} {arguments} -c {layout.config}
directory = {layout.directory}
priority = {priority}
environment = {blanks}
autorestart = true
startsecs = {START_S}
startretries = {START_TRIES}
stopsignal = TERM
stopwaitsecs = {STOP_S}
redirect_stderr = true
stdout_logfile = {layout.run_dir.replace("%%", "%%%%")}/log/{name}.log
stdout_logfile_maxbytes = {LOG_SIZE_MB}MB
stdout_logfile_backups = {LOG_COUNT}
"""


def here(config: Config) -> Layout:
    """Return the layout of what is started from the working directory. Raises ConfigError for impossible paths."""
    where = f"{config.path}: run_dir"
    return Layout(
        command=escaped(f"{shlex.quote(sys.executable)} -m feedhandler", where),
        config=escaped(shlex.quote(str(Path(config.path).absolute())), where),
        directory=escaped(str(Path.cwd()), where),
        run_dir=escaped(str(Path(config.run_dir).absolute()), where),
        has_control=False,  # its socket's path would be too long in a deep directory
    )


def escaped(text: str, where: str) -> str:
    """Return text as supervisord reads it once. Raises ConfigError for what it cannot be told at all."""
    if COMMENT.search(text) or not text.isprintable():
        raise ConfigError(
            f"{where}: {text!r} cannot be told to supervisord, which takes `;` or `#` after a blank for a comment;"
            " use another path"
        )
    return text.replace("%", "%%")


def checkout(config_path: str) -> Layout:
    """Return the layout of a checkout with its `.venv`, as seen from its `conf/supervisord.conf`."""
    return Layout(
        command='"%(here)s/../.venv/bin/feedhandler"',
        config=escaped(shlex.quote(config_path), "-c"),
        directory="%(here)s/..",
        run_dir="%(here)s/../run",
        has_control=True,
    )
