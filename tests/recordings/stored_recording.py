"""Makes the recording that ships with the tests (stored/), and states what is in it (stored.json).

    python tests/recordings/stored_recording.py              # records anew, by real processes, half a minute
    python tests/recordings/stored_recording.py --as-it-is   # states anew what comes of the one that is there

The second is for when more, or other things, are made of the same frames. The first is for when something is to be
in it that is not: recordings of yesterday are to be read tomorrow, so a reader that cannot read this one is wrong.

Three simulated exchanges, all kinds. What goes wrong in it, one thing an exchange and one for all of them:

- Binance loses three messages of the book of BTC/USDT, on a connection that lives.
- Bybit loses nothing.
- KuCoin cuts its connections.
- The recorder is killed, with what is in its open blocks, and started again.
"""

import argparse
import contextlib
import hashlib
import io
import json
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from lazily import research

from feedhandler import replay
from feedhandler.cli.main import main as feedhandler
from feedhandler.data import wire
from feedhandler.recordings import directory

HERE = Path(__file__).parent
STORED, STATED = HERE / "stored", HERE / "stored.json"
EXCHANGES = ("binance", "kucoin", "bybit")
LOST = "btcusdt@depth@100ms", 3  # messages
RATE = 40  # messages per second and exchange
FRAMES = 80  # of each exchange, between two faults


def verified(path):
    """Return the status of `captures verify`, and what it finds missing, by feed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = feedhandler(["captures", "verify", "--json", str(path)])
    feeds = {}
    for line in printed.getvalue().splitlines():
        found = json.loads(line)
        feeds[found["feed"]] = {
            **{name: found[name] for name in ("received", "sent", "answered", "missing", "unexplained")},
            "segments": [
                {name: segment[name] for name in ("path", "state", "reason", "items")}
                for segment in found["segments"]
            ],
            "frames": [
                {name: each[name] for name in ("connection", "what", "first", "last", "why")}
                for each in found["ranges"]
            ],
            "ids": [
                {name: gap[name] for name in ("kind", "symbol", "first", "last", "why")}
                for gap in found["ids"]["gaps"]
            ],
        }
    return status, feeds


def exported(path, out):
    """Export all kinds; returns how many rows there are of each, by exchange."""
    assert feedhandler(["export", str(path), "--to", str(out), "--quiet", "--jobs", "1"]) == 0
    rows = {}
    for kind in research.kinds(out):
        exchanges = research.read(out, kind=kind, columns=["exchange"], to="arrow")["exchange"].to_pylist()
        rows[kind] = {name: exchanges.count(name) for name in sorted({*exchanges})}
    return rows


def replayed(path):
    """Return count and SHA-256 of the records, as bytes, by kind and exchange of their topics."""
    found = defaultdict(list)
    for record in replay.messages(path):
        kind, exchange, _ = wire.unpadded(record[: wire.TOPIC_SIZE]).split(".", 2)
        found[f"{kind}.{exchange}"].append(record)
    return {
        name: {"count": len(records), "sha256": hashlib.sha256(b"".join(records)).hexdigest()}
        for name, records in sorted(found.items())
    }


def record(path):
    """Run three simulated exchanges with a recorder, and what goes wrong, in a directory."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "e2e")]
    from harness import Stack, wait_until
    from test_recorder import ALL_KINDS, configure, received, status

    s = Stack(path, exchanges=EXCHANGES, sim=f"messages_per_s = {RATE}\ninstruments = 50", extra=ALL_KINDS)
    s.recordings = path / "recordings"
    configure(s)

    def some_traffic():
        before = {name: received(s, name) for name in s.exchanges}
        for name in s.exchanges:
            wait_until(lambda name=name: received(s, name) > before[name] + FRAMES, f"frames of {name}")

    try:
        s.start("recorder", "sim", "merger", *s.exchanges)
        reader = s.wait_live()
        some_traffic()
        topic, count = LOST
        s.fault("binance", "lose_messages", topic=topic, count=count)
        s.wait_effect("binance", "lose_messages", count)
        some_traffic()
        s.fault("kucoin", "rst")
        s.wait_effect("kucoin", "rst", 1)
        some_traffic()
        s.wait_live(reader, exchanges=["kucoin"])
        killed = s.processes["recorder"].pid
        s.kill("recorder")
        s.start("recorder")
        wait_until(lambda: (found := status(s)) is not None and found.pid != killed, "the next recorder")
        some_traffic()
        for name in (*s.exchanges, "recorder"):
            assert s.kill(name, signal.SIGTERM) == 0
    finally:
        s.close()
    return s.recordings


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--as-it-is", action="store_true", help="record nothing")
    with tempfile.TemporaryDirectory(prefix="stored-") as folder:
        if not parser.parse_args().as_it_is:
            made = record(Path(folder))
            shutil.rmtree(STORED, ignore_errors=True)
            shutil.copytree(made, STORED, ignore=shutil.ignore_patterns(directory.LOCK))
        status, feeds = verified(STORED)
        rows, records = exported(STORED, Path(folder) / "research"), replayed(STORED)
    stated = {"status": status, "feeds": feeds, "rows": rows, "records": records}
    STATED.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(path.stat().st_size for path in STORED.rglob('*') if path.is_file()):,} bytes")


if __name__ == "__main__":
    main()
