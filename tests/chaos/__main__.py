"""Faults end to end: real processes under their supervisor, the simulated exchanges, and all that may go wrong.

    python tests/chaos --seed 7 --seconds 120      # or `make chaos SEED=7 SECONDS=120`

One seed decides what happens and in which order; when exactly, and what a fault hits, the machine decides. Each act
has processes of its own, in a directory of its own. Exit status 0 only if every claim holds.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from acts import ACTS, PATIENCE, Settings, perform
from claims import show

START_S = 60.0  # of each act, at most, before and after what it does


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument(
        "--seconds", type=float, default=120.0, metavar="S", help="of load, without the kills (%(default)g)"
    )
    parser.add_argument(
        "--rate", type=int, default=300, metavar="N", help="messages/s of each exchange (%(default)s)"
    )
    parser.add_argument("--kills", type=int, default=15, metavar="N", help="processes to kill (%(default)s)")
    parser.add_argument(
        "--quiet", type=float, default=600.0, metavar="S", help="seconds of quiet markets (%(default)g)"
    )
    names = ", ".join(f'"{act.name}"' for act in ACTS)
    parser.add_argument("--act", action="append", metavar="NAME", help=f"only this one, of {names}")
    parsed = parser.parse_args()
    if unknown := set(parsed.act or ()) - {act.name for act in ACTS}:
        parser.error(f"there is no act {sorted(unknown)[0]!r}; choose from {names}")
    if parsed.seconds <= 0 or parsed.quiet <= 0 or parsed.kills < 1:
        parser.error("--seconds, --quiet and --kills must be positive")
    if not 100 <= parsed.rate <= 50_000:
        parser.error("--rate must be from 100, below which a symbol may be silent for seconds, to 50000")
    return parsed


def interrupted(number, frame):
    raise KeyboardInterrupt("too long" if number == signal.SIGALRM else "")


def main():
    given = arguments()
    seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
    settings = Settings(seed, given.seconds, given.rate, given.kills, given.quiet)
    acts = [act for act in ACTS if not given.act or act.name in given.act]
    again = f"make chaos SEED={seed} SECONDS={given.seconds:g} RATE={given.rate} KILLS={given.kills}"
    again += f" QUIET={given.quiet:g}"
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGALRM, interrupted)
    signal.alarm(int(given.seconds + given.quiet + given.kills * PATIENCE.heals_s + 4 * START_S * len(acts)))
    started = time.monotonic()
    print(f"seed {seed}: {again}", flush=True)
    results = []
    try:
        for number, act in enumerate(acts):
            print(f"{act.name} ...", flush=True)
            rng = random.Random(f"{act.name} {seed}")
            results.append((act.name, *perform(act, directory / str(number), settings, rng)))
    except KeyboardInterrupt as exc:
        print(f"stopped{f': {exc}' if str(exc) else ''}; logs are in {directory}\nagain: {again}")
        return 1
    print()
    for name, did, claims in results:
        print(f"{name}: {did}")
        show(claims)
    all_hold = all(claim.holds for _, _, claims in results for claim in claims)
    print(
        f"\nseed {seed}, {time.monotonic() - started:.0f} s: "
        + ("every claim holds" if all_hold else "FAILED")
    )
    if not all_hold:
        print(f"logs are in {directory}\nagain: {again}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
