"""CurveZMQ without sockets: what is forged, cut, repeated or out of order ends it, and brings nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.transport import curve
from feedhandler.transport.curve import Channel, Client, KeyPair, Server, transient

SERVER, CLIENT = transient(), transient()


def pair(is_authorized=lambda key: True, server_key=SERVER.public):
    return Server(SERVER, is_authorized, b"of server"), Client(CLIENT, server_key, b"of client")


def shake(server, client):
    """Return what each learns of the other."""
    (hello,) = client.greet()
    (welcome,), nothing = server.take(hello)
    assert nothing is None
    (initiate,), nothing = client.take(welcome)
    assert nothing is None
    (ready,), of_client = server.take(initiate)
    commands, of_server = client.take(ready)
    assert commands == []
    return of_client, of_server


@pytest.fixture
def channels():
    server, client = pair()
    shake(server, client)
    return server.channel, client.channel


def test_both_learn_of_the_other_and_the_server_knows_the_clients_key():
    server, client = pair()
    assert shake(server, client) == (b"of client", b"of server")
    assert server.client_key == CLIENT.public


def test_commands_have_the_sizes_that_the_protocol_gives_them():
    server, client = pair()
    (hello,) = client.greet()
    (welcome,), _ = server.take(hello)
    (initiate,), _ = client.take(welcome)
    assert (len(hello), len(welcome)) == (200, 168)
    assert len(initiate) == 257 + len(b"of client")


def test_messages_go_both_ways_with_their_flags(channels):
    server, client = channels
    for flags, message in ((0, b""), (1, b"abc"), (2, b"x" * 100_000)):
        assert client.open(server.seal(flags, message)) == (flags, message)
        assert server.open(client.seal(flags, message)) == (flags, message)


def test_a_message_that_comes_twice_or_too_early_ends_the_connection(channels):
    server, client = channels
    first, second = server.seal(0, b"1"), server.seal(0, b"2")
    assert client.open(second) == (0, b"2")
    for frame in (first, second):
        with pytest.raises(ValueError, match="twice, or in another order"):
            client.open(frame)


def test_a_message_for_the_other_direction_is_none(channels):
    """Sent back to who sent it."""
    server, _ = channels
    server.seal(0, b"1")
    with pytest.raises(ValueError, match="cannot be opened"):
        server.open(server.seal(0, b"2"))


def test_a_client_that_is_not_authorized_or_takes_us_for_another_gets_no_channel():
    server, client = pair(is_authorized=lambda key: False)
    with pytest.raises(ValueError, match="not authorized"):
        shake(server, client)
    assert server.channel is None
    server, client = pair(server_key=transient().public)
    with pytest.raises(ValueError, match="HELLO cannot be opened"):
        shake(server, client)


def test_a_vouch_of_another_connection_is_worth_nothing():
    """Who has seen a client's INITIATE at a server of his own cannot pass for that client."""
    mallory = transient()
    victim = Client(CLIENT, mallory.public, b"")
    (hello,) = victim.greet()
    rogue = Server(mallory, lambda key: True, b"")
    (welcome,), _ = rogue.take(hello)
    (initiate,), _ = victim.take(welcome)
    rogue.take(initiate)
    assert rogue.client_key == CLIENT.public
    server, own = pair()
    (welcome,), _ = server.take(own.greet()[0])
    with pytest.raises(ValueError, match="does not follow our WELCOME"):
        server.take(initiate)


def test_commands_out_of_their_order_end_the_connection():
    server, client = pair()
    (hello,) = client.greet()
    (welcome,), _ = server.take(hello)
    with pytest.raises(ValueError, match="not expected here"):
        server.take(hello)
    with pytest.raises(ValueError, match="not expected here"):
        client.take(b"\x05READY" + bytes(50))
    (initiate,), _ = client.take(welcome)
    with pytest.raises(ValueError, match="not expected here"):
        client.take(welcome)
    server.take(initiate)
    with pytest.raises(ValueError, match="not expected here"):
        server.take(initiate)


def test_keys_of_no_effect_are_refused():
    """Points of low order make the same secret with every key."""
    with pytest.raises(ValueError, match="a key that is none"):
        curve._shared(bytes(32), SERVER.secret)


STEPS = ("hello", "welcome", "initiate", "ready", "message")


@pytest.mark.parametrize("step", STEPS)
def test_one_bit_that_is_other_anywhere_ends_the_connection(step):
    for position in range(0, 400, 3):
        server, client = pair()
        commands = iter(flow(server, client, step))
        command = bytearray(next(commands))
        if position >= len(command):
            break
        command[position] ^= 1 << position % 8
        if step == "hello" and 8 <= position < 80:
            continue  # padding: whatever is in it has no meaning
        if step == "hello" and position == 111:
            continue  # the highest bit of a Curve25519 key, which has none either
        with pytest.raises(ValueError, match=r"it sent|its "):
            deliver(server, client, step, bytes(command))


def flow(server, client, step):
    """Go through the handshake up to a command, and yield that."""
    (command,) = client.greet()
    for name in STEPS[:4]:
        if name == step:
            yield command
            return
        taker = server if name in ("hello", "initiate") else client
        commands, _ = taker.take(command)
        command = commands[0] if commands else b""
    yield client.channel.seal(0, b"subscription")


def deliver(server, client, step, command):
    if step == "message":
        server.channel.open(command)
    else:
        (server if step in ("hello", "initiate") else client).take(command)


@given(st.sampled_from(STEPS), st.binary(max_size=400), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_at_any_step_are_refused_or_end_it_with_the_one_error(step, junk, cut):
    server, client = pair()
    (command,) = flow(server, client, step)
    for wrong in (junk, command[:cut], command[:cut] + junk, command[: len(command) // 2] + junk):
        if wrong == command:
            continue
        try:
            deliver(server, client, step, wrong)
        except ValueError:
            continue
        assert step == "hello", "padding, and a bit of the key that has no meaning"


def test_a_channel_of_other_keys_opens_nothing(channels):
    server, _ = channels
    other = Channel(bytes(32), curve.CLIENT_PREFIX, curve.SERVER_PREFIX, 1, 1)
    with pytest.raises(ValueError, match="cannot be opened"):
        other.open(server.seal(0, b"secret"))


def test_keys_stay_in_memory():
    import pickle

    keys = KeyPair(b"p" * 32, b"s" * 32)
    assert "ssss" not in f"{keys!r}{keys}"
    with pytest.raises(TypeError, match="stay in memory"):
        pickle.dumps(keys)
