"""The supervisor's configuration, for the demo as for production: one program per process.

It is made from the configuration at each start, and kept in `run_dir`: what runs is what is configured.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data.errors import ConfigError
from feedhandler.data.processes import BRIDGE, GATEWAY, MERGER, RECORDER, RELAY, SIM
from feedhandler.data.shard import shards
from feedhandler.runtime.lifecycle import END_S, SUPERVISED_ENV, die_with_parent
from feedhandler.runtime.settings import NATS_ENV, SECRETS, Config
from feedhandler.transport import private
from feedhandler.transport.files import feed_name
from feedhandler.transport.private import IPC_PATH_SIZE_MAX

# A process that ends before START_S is started again after 1 s, 2 s, 3 s, …; one that ran longer, at once.
START_S: Final = 1
START_TRIES: Final = 1_000_000  # an outage of any length ends without an operator
STOP_S: Final = 5
assert STOP_S > END_S, "a process ends by itself before it is killed"
LOG_SIZE_MB: Final = 10
UMASK: Final = 0o077  # whatever that of who starts us is
LOG_COUNT: Final = 5
COMMENT: Final = re.compile(r"\s[;#]")
OWN_SECRETS: Final = {GATEWAY: SECRETS, BRIDGE: NATS_ENV}
PYTHON: Final = (sys.executable, "-P")  # -P: a file in the working directory is no module of ours
PID_SIZE_MAX: Final = 8  # a dot and a pid, which the supervisor appends to its socket's path for a moment


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are, as the supervisor is to see them: `escaped`, since % starts an expansion there."""

    command: str  # the `feedhandler` program
    config: str
    directory: str  # working directory: relative addresses and paths of the configuration start here
    run_dir: str
    has_control: bool  # listen at `control_path`


def render(config: Config, layout: Installation) -> str:
    """Return the text of a supervisord configuration that runs everything `config` names."""
    programs = [
        (name, arguments, 30)
        for exchange, settings in config.exchanges.items()
        if not settings.elsewhere
        for name, arguments in feed_programs(config, exchange)
    ]
    if not config.is_merger_elsewhere:  # else this host has feeds and nothing else
        programs.insert(0, (MERGER, MERGER, 20))
        programs += [(RELAY, RELAY, 40), (GATEWAY, GATEWAY, 40)]
        if config.nats is not None:
            programs.append((BRIDGE, "bridge nats", 50))
    if config.recorder is not None:  # before the feeds, so that it has their first words
        programs.append((RECORDER, RECORDER, 25))
    if config.sim is not None:
        programs.insert(0, (SIM, SIM, 10))
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


def control_path(run_dir: str) -> Path:
    """Return the control socket of a supervisor that runs as a daemon."""
    return Path(run_dir).absolute() / "supervisor.sock"


def install(config: Config, *, has_control: bool) -> list[str]:
    """Write the supervisor's configuration into `run_dir`; returns the command that runs it.

    Raises ConfigError for a directory that cannot be used so, and OSError.
    """
    text = render(config, here(config, has_control=has_control))
    run_dir = Path(config.run_dir).absolute()
    private.take_over(run_dir)
    path = run_dir / "supervisord.conf"
    private.make_folder(log_dir(str(run_dir)))
    private.write_whole(path, text.encode())
    # -n: it stays what we started; its own way to become a daemon would leave no way to know why it ended.
    return [*PYTHON, "-m", "supervisor.supervisord", "-n", "-c", str(path)]


def spawn(config: Config, command: list[str], *, ends_with_us: bool) -> "subprocess.Popen[bytes]":
    """Start the supervisor, in a session of its own: Ctrl-C in the terminal does not reach it.

    What it prints before it has a log goes to `error_log`.
    """
    fd = private.open_file(error_log(config.run_dir), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(fd, "wb") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            umask=UMASK,
            preexec_fn=die_with_parent if ends_with_us else None,
        )


def error_log(run_dir: str) -> Path:
    """Return the file with the output of a supervisor that could not start."""
    return log_dir(run_dir) / "supervisord.err"


def _head(layout: Installation) -> str:
    run = layout.run_dir
    return f"""\
; Written by feedhandler from {layout.config}, which is what to change: this file is made anew at each start.

[supervisord]
nodaemon = false
umask = {UMASK:03o}
directory = {layout.directory}
pidfile = {run}/supervisord.pid
logfile = {run}/log/supervisord.log
logfile_maxbytes = {LOG_SIZE_MB}MB
logfile_backups = {LOG_COUNT}
childlogdir = {run}/log
nocleanup = true
environment = {SUPERVISED_ENV}="1"
"""


def _control(layout: Installation) -> str:
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


def _program(layout: Installation, name: str, arguments: str, priority: int) -> str:
    # Restarted whatever the exit status: also a wrong configuration may be corrected meanwhile.
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


def here(config: Config, *, has_control: bool = False) -> Installation:
    """Return the layout of what is started from the working directory. Raises ConfigError for impossible paths."""
    where = f"{config.path}: run_dir"
    control = control_path(config.run_dir)
    if has_control and len(os.fsencode(control)) > IPC_PATH_SIZE_MAX - PID_SIZE_MAX:
        raise ConfigError(
            f"{where}: {control.parent} is too deep: the path of the supervisor's socket there would have more than"
            f" {IPC_PATH_SIZE_MAX - PID_SIZE_MAX} bytes; set a shorter one, such as /run/feedhandler"
        )
    return Installation(
        command=escaped(shlex.join([*PYTHON, "-m", "feedhandler"]), where),
        config=escaped(shlex.quote(str(Path(config.path).absolute())), where),
        directory=escaped(str(Path.cwd()), where),
        run_dir=escaped(str(Path(config.run_dir).absolute()), where),
        has_control=has_control,
    )


def escaped(text: str, where: str) -> str:
    """Return text as supervisord reads it once. Raises ConfigError for what cannot be written for it at all."""
    if COMMENT.search(text) or not text.isprintable():
        raise ConfigError(
            f"{where}: {text!r} cannot be told to supervisord, which takes `;` or `#` after a blank for a comment;"
            " use another path"
        )
    return text.replace("%", "%%")
