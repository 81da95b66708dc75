"""WebSocket frames as a server sends them: unmasked, uncompressed.

Source: https://www.rfc-editor.org/rfc/rfc6455#section-5.2. The standard library has none of this, and
aiohttp frames one message at a time; here a message is a few bytes in front of the payload, so that many
can leave in one write. What clients send is read by aiohttp.
"""

import random
import struct

TEXT = 0x1
BINARY = 0x2
CONTINUATION = 0x0
CLOSE = 0x8
PING = 0x9
PONG = 0xA
_FIN = 0x80

_SHORT = [bytes((_FIN | TEXT, size)) for size in range(126)]
_LONG = struct.Struct("!BBH").pack
_HUGE = struct.Struct("!BBQ").pack


def text(payload: bytes) -> bytes:
    """Frame one whole text message. `payload` need not be UTF-8: a fault may send what it likes.

    # hot: bench/load.py, once per message and audience
    """
    size = len(payload)
    if size < 126:
        return _SHORT[size] + payload
    if size < 65_536:
        return _LONG(_FIN | TEXT, 126, size) + payload
    return _HUGE(_FIN | TEXT, 127, size) + payload


def frame(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """Frame any piece of a message, or a control frame."""
    first = opcode | (_FIN if is_final else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return _LONG(first, 126, size) + payload
    return _HUGE(first, 127, size) + payload


def close(code: int, reason: str = "") -> bytes:
    """Frame the end of a connection; the reason is cut to what a control frame can hold."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:120].decode(errors="ignore").encode())


def payload_of(whole: bytes) -> bytes:
    """Undo `text`."""
    size = whole[1]
    return whole[2:] if size < 126 else whole[4:] if size == 126 else whole[10:]


def fragmented(whole: bytes, rng: random.Random) -> bytes:
    """Send one framed text message as two to four frames, cut anywhere, also inside a character."""
    payload = payload_of(whole)
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randrange(1, 4)))
    pieces = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if index else TEXT, piece, is_final=index == last)
        for index, piece in enumerate(pieces)
    )


def cut_anywhere(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut bytes into the pieces in which they are handed to TCP: a header may end up in two reads."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 5)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]
