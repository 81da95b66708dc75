"""Fuzz the hot path: python tests/fuzz --seconds 60 --seed 7; `make sanitize` does so under sanitizers.

Each target has its share of the time, in a process of its own. A round that fails is named with the command that
repeats it; one that ends the process (a sanitizer's report, a crash) as well.
"""

import argparse
import itertools
import logging
import mmap
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

sys.path[1:1] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "exchanges")]

from targets import TARGETS, play  # noqa: E402

import feedhandler  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of all targets together (default: 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("--round", type=int, help="this one alone, of one target")
    chosen = parser.parse_args()
    if not feedhandler.IS_COMPILED:
        print("the compiled part is not built: nothing to fuzz")
        return 1
    names = [chosen.target] if chosen.target else list(TARGETS)
    if chosen.round is not None:
        play(names[0], chosen.seed, chosen.round)
        return 0
    return max([fuzz(name, chosen.seed, chosen.seconds / len(names)) for name in names])


def fuzz(name: str, seed: int, seconds: float) -> int:
    """Play rounds of a target in a child; returns 0 if all is well."""
    done = mmap.mmap(-1, 8)  # shared: it tells how far the child came
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        play_until(name, seed, time.monotonic() + seconds, done)
    _, status = os.waitpid(pid, 0)
    count = int.from_bytes(done[:], "little")
    if status:
        print(f"{name}: round {count} failed: tests/fuzz --seed {seed} --target {name} --round {count}")
        return 1
    print(f"{name}: {count} rounds")
    return 0


def play_until(name: str, seed: int, end_mono_s: float, done: mmap.mmap) -> NoReturn:
    """Play rounds until then, one at least, and end the process."""
    status = 1
    logging.disable()
    try:
        for number in itertools.count():
            done[:] = number.to_bytes(8, "little")
            if time.monotonic() >= end_mono_s and number:
                break
            play(name, seed, number)
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
