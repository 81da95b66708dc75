"""What the operator looks up and orders at the gateway: balances, positions, credentials, lists."""

import argparse

from feedhandler.cli.arguments import Commands, add_check, add_exchange, command, settings_of


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    balances = command(commands, "balances", _balances, "what accounts hold, as the gateway knows it")
    balances.add_argument("--sync", action="store_true", help="ask the exchanges first")
    add_check(balances, "one is incomplete, or not followed; 2 if no gateway answers, or an account failed")

    text = "what is held and watched; with ASSET=AMOUNT: say what is held besides accounts"
    positions = command(commands, "positions", _positions, text)
    add_exchange(positions, nargs="?")
    positions.add_argument(
        "amounts",
        nargs="*",
        metavar="ASSET=AMOUNT",
        help="such as BTC=0.5, or, of a contract, BTC/USDT:USDT=-0.5; 0 ends one, others stay",
    )

    text = "give the gateway an account's credentials, or let it forget them"
    credentials = command(commands, "credentials", _credentials, text)
    credentials.epilog = (
        "set takes them from the environment (BINANCE_API_KEY and so on), else from standard input: the key in"
        " the first line, then the secret, then, where the exchange has one, the passphrase in the last; at a"
        " terminal it asks. Never from arguments: those are seen by other users."
    )
    credentials.add_argument("action", choices=("set", "remove"), metavar="ACTION", help="set or remove")
    add_exchange(credentials)

    subscriptions = command(commands, "subscriptions", _subscriptions, "what is wanted, and by whom")
    for each in (balances, subscriptions):
        add_exchange(each, nargs="?")
    instruments = command(commands, "instruments", _instruments, "what an exchange lists")
    add_exchange(instruments)
    instruments.add_argument(
        "search", nargs="?", default="", metavar="SEARCH", help="only symbols with this in them"
    )
    for each in (balances, positions, subscriptions, instruments):
        each.add_argument("--json", action="store_true", help="what the gateway answers, as JSON")
    command(commands, "token", _token, "print the file that has the API's token")


def _balances(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import gateway_client

    settings = settings_of(arguments)
    name, is_sync = arguments.exchange, arguments.sync
    if arguments.check:
        return gateway_client.check_balances(settings, name, is_sync=is_sync, is_json=arguments.json)
    return gateway_client.balances(settings, name, is_sync=is_sync, is_json=arguments.json)


def _positions(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import gateway_client

    settings = settings_of(arguments)
    if arguments.amounts:
        return gateway_client.set_positions(
            settings, arguments.exchange, arguments.amounts, is_json=arguments.json
        )
    return gateway_client.positions(settings, arguments.exchange, is_json=arguments.json)


def _credentials(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import gateway_client

    settings = settings_of(arguments)
    act = gateway_client.set_credentials if arguments.action == "set" else gateway_client.remove_credentials
    return act(settings, arguments.exchange)


def _subscriptions(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import gateway_client

    settings = settings_of(arguments)
    return gateway_client.subscriptions(settings, arguments.exchange, is_json=arguments.json)


def _instruments(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import gateway_client

    settings = settings_of(arguments)
    return gateway_client.instruments(settings, arguments.exchange, arguments.search, is_json=arguments.json)


def _token(arguments: argparse.Namespace) -> int:
    from feedhandler.cli import gateway_client

    return gateway_client.token(settings_of(arguments))
