"""`feedhandler prod`, `supervisord`: everything as a daemon."""

import argparse

from feedhandler.cli.arguments import Commands, command, settings_of
from feedhandler.cli.looking import show_status
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK
from feedhandler.runtime.settings import Config


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    prod = command(commands, "prod", _prod, "everything, as a daemon: start it, look at it, stop it")
    prod.add_argument(
        "action", choices=("start", "status", "stop"), metavar="ACTION", help="start, status or stop"
    )
    prod.add_argument(
        "--foreground",
        action="store_true",
        help="with start: stay, for systemd and the like, and log here as well",
    )
    prod.set_defaults(endpoint=None, json=False, check=False, key=None, server_key=None)  # of `status`
    text = "print what `prod start` tells supervisord, for a supervisord of your own"
    command(commands, "supervisord", _supervisord, text)


def _prod(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import daemon, preflight

    settings = settings_of(arguments)
    if arguments.action == "stop":
        return daemon.stop(settings)
    if arguments.action == "status":
        return _prod_status(settings, arguments)
    daemon.refuse_second(settings)
    preflight.check(settings)
    if arguments.foreground:
        return daemon.become(settings)
    return daemon.start(settings)


def _prod_status(settings: Config, arguments: argparse.Namespace) -> int:
    from feedhandler.cli import daemon
    from feedhandler.runtime.host import look

    if not daemon.is_running(settings):
        print("not running")
        return EXIT_FAILED
    if settings.is_merger_elsewhere:  # where it is, there the status of its exchanges is
        daemon.show(settings)
        status = EXIT_OK
    else:
        status = show_status(arguments)
    return status if all(each.state == "up" for each in look(settings)) else EXIT_FAILED


def _supervisord(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import supervision

    settings = settings_of(arguments)
    print(supervision.render(settings, supervision.here(settings, has_control=True)), end="")
    return EXIT_OK
