"""`feedhandler keys make`, `authorize`, `revoke`, `list`: keys for connections that leave this host."""

import argparse
import sys
from pathlib import Path

from feedhandler.cli.arguments import Commands, add_config, settings_of
from feedhandler.data import hints
from feedhandler.data.errors import EXIT_OK, ConfigError


def add(commands: Commands) -> None:
    """Add the command of this module."""
    text = "make keys for connections that leave this host, and say who may connect"
    parser = commands.add_parser(
        "keys",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="NAME.key is public: give it to those who are to let you in, or whom you let in. NAME.key_secret"
        " stays where it was made. Who may connect is looked at every second: nothing has to be restarted.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="make a key pair: NAME.key and NAME.key_secret")
    make.add_argument("name", metavar="NAME")
    make.add_argument("--dir", default="conf/keys", help="where to (default: %(default)s)")
    make.set_defaults(run=_make, name="keys make")
    authorize = actions.add_parser("authorize", help="let the owner of a public key connect")
    authorize.add_argument("file", metavar="FILE", help="such as desk-3.key")
    revoke = actions.add_parser("revoke", help="let the owner of a key connect no more; ends its connections")
    revoke.add_argument("key", metavar="NAME", help="as `list` shows it")
    listing = actions.add_parser("list", help="who may connect")
    for action, run in ((authorize, _authorize), (revoke, _revoke), (listing, _list)):
        add_config(action)
        action.set_defaults(run=run, name="keys")


def _make(arguments: argparse.Namespace) -> int:
    from feedhandler.transport import keys

    public, secret = keys.make(Path(arguments.dir), arguments.name)
    print(f"{public}: public; give it to whoever is to let you in, or whom you let in")
    print(f"{secret}: secret; stays here, readable by you alone")
    return EXIT_OK


def _authorize(arguments: argparse.Namespace) -> int:
    from feedhandler.transport import keys

    print(f"{keys.authorize(arguments.file, _clients(arguments))}: may connect, from within a second on")
    return EXIT_OK


def _revoke(arguments: argparse.Namespace) -> int:
    from feedhandler.transport import keys

    print(f"{keys.revoke(arguments.key, _clients(arguments))}: removed; its connections end within seconds")
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    from zmq.utils import z85

    from feedhandler.transport import keys

    names = keys.Clients(str(_clients(arguments)), "curve.clients").names()
    for name, key in names.items():
        print(f"{name:<30} {z85.encode(key).decode()}")
    if not names:
        text = "nobody may connect; `feedhandler keys authorize FILE` lets somebody in"
        print(hints.spelled(text), file=sys.stderr)
    return EXIT_OK


def _clients(arguments: argparse.Namespace) -> Path:
    settings = settings_of(arguments)
    if not settings.curve.clients:
        raise ConfigError(f'{settings.path}: curve.clients: is missing; for example "conf/keys/clients"')
    return Path(settings.curve.clients)
