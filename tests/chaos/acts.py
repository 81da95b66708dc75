"""The acts: what is done to real processes under load, and what is claimed meanwhile.

An act gets a stage on which everything is live, and a `random.Random` that decides what happens; it returns what
it did, in words, and its claims. What holds for every act is claimed in `perform`.
"""

import contextlib
import functools
import json
import os
import signal
import time
import traceback
import urllib.error
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from claims import Claim
from harness import EXCHANGES, MAJORS, STALE, topics_of, wait_until
from markets_witness import ALL, LINEAR, MARKETS, MarketsWitness, symbols_of
from observer import NS_PER_S
from stage import MAJORS_OF, PATIENCE_S, WANTED, Stage, seconds_since

from feedhandler.exchanges import EXCHANGES as OFFERED
from feedhandler.sim.faults import ONLY_ON
from feedhandler.sim.market import universe

SHARE = 1 / 6  # of the seconds, for each act that has no other end; twice for faults
MAX_AGE_S = 6.0  # with two legs, KuCoin's 30 new connections a minute allow no less
GUESTS = ("DOGE/USDT", "LTC/USDT", "LINK/USDT")
NOISE_S = 5.0  # of a machine that several share, on top of what the documentation promises
ASKED_AGAIN_S = 15.0  # a channel that was acknowledged and is silent
SILENT_AFTER_S = 17.0  # of a channel that usually speaks every second: from its last word to the flag
LEARNS_S = 30.0  # how long it has to speak first
FIRST_QUOTE_S = 5.0  # of a new connection: its symbols are asked for by REST, whatever the stream says
QUOTES_AFTER_S = 40.0  # no longer are they waited for
HALF_OPEN_S = 30.0  # a ping and what its answer may take
QUIET_SYMBOLS = tuple(f"{each.base}/{each.quote}" for each in universe(1, 110, ()))[:100]  # on all exchanges
BUSY = "ETH/USDT"  # not BTC/USDT, by which each connection is known to live
MORE_KINDS = ("trade", "depth", "book")
BOOKS_KNOWN_S = 2.0  # a connection begins with the books of another
BUSY_MARKETS = "instruments = 60\nbusiest_per_s = 20"
QUIET_MARKET = "instruments = 110\nbusy_symbols = 5"  # the others change every 1 to 10 minutes
BUDGET_S = 60.0  # KuCoin's window for new connections: until then the next one may have to wait


class Patience(NamedTuple):
    """The limits of a connection's life, shorter than in production."""

    stale_after_s: float
    reconnect_after_s: float
    connect_timeout_s: float = 4.0
    backoff_max_s: float = 2.0

    def lines(self, legs, max_age_s=0.0):
        return "\n".join(
            [f"{name} = {value}" for name, value in self._asdict().items()]
            + [f"legs = {legs}", f"max_age_s = {max_age_s}"]
        )

    @property
    def heals_s(self):
        """How long after the end of a fault everything is live, at the latest."""
        return self.reconnect_after_s + self.connect_timeout_s + self.backoff_max_s + ASKED_AGAIN_S + BUDGET_S


PATIENCE = Patience(stale_after_s=2.0, reconnect_after_s=12.0)


class Settings(NamedTuple):
    seed: int
    seconds: float  # of load, in sum, of those acts that have no other end
    rate: int  # messages/s of each exchange
    kills: int
    quiet: float = 600.0  # seconds that quiet markets are watched


class Act(NamedTuple):
    name: str
    extra: Callable  # (rng) → TOML lines of the exchanges
    play: Callable  # (stage, settings, rng) → what was done, claims
    symbols: tuple = ()  # none: the majors
    sim: str = ""  # TOML lines of the simulator, instead of a rate
    begin: Callable = Stage.start
    expected: dict = MAJORS_OF  # what is watched, by exchange


def none_of(claim, found, measured=""):
    """A claim that nothing was found; the first of what was is shown."""
    shown = ", ".join(str(each) for each in found[:3])
    return Claim(claim, measured or str(len(found)) + (f": {shown}" if found else ""), not found)


# --- connections that end


def rollover(stage, settings, rng):
    """Connections grow old, and are followed by others."""
    stage.witness()
    before = renewals(stage)
    stage.pause(settings.seconds * SHARE, "connections come of age")
    wait_until(
        lambda: min((renewals(stage) - before).get(name, 0) for name in EXCHANGES) >= 2,
        "two renewals of each exchange",
        PATIENCE_S,
    )
    count = sum((renewals(stage) - before).values())
    return f"{count} renewals", nothing_was_missed(stage)


def renewals(stage):
    return Counter({name: stage.count_in_log(f"feed-{name}", "renewed a connection") for name in EXCHANGES})


def unplug(stage, settings, rng):
    """Again and again one of two connections, once the other has heard everything."""
    stage.witness()
    return f"{unplug_again(stage, settings, rng)} of two unplugged", nothing_was_missed(stage)


def unplug_again(stage, settings, rng):
    """Returns how often."""
    until = time.monotonic() + settings.seconds * SHARE
    connects = dict.fromkeys(EXCHANGES, 0)
    count = 0
    while time.monotonic() < until or not all(connects.values()):
        exchange = rng.choice([name for name in EXCHANGES if not connects[name]] or EXCHANGES)
        connects[exchange] = wait_until(
            lambda name=exchange: both_hear_all(stage, name, connects[name]),
            f"both legs of {exchange} hear everything",
            PATIENCE_S,
        )
        stage.pause(BOOKS_KNOWN_S if stage.more_kinds else 0.0, f"{count} unplugged")
        ours = wait_until(lambda name=exchange: subscribed(stage, name), "two are subscribed", PATIENCE_S)
        stage.stack.fault(exchange, "rst", connection=ours[rng.randrange(2)])
        count += 1
        stage.pause(rng.uniform(0.0, 1.0), f"{count} unplugged")
    stage.pause(3.0, "the last ones come back")
    return count


def unplug_with_trades(stage, settings, rng):
    """The same, with trades, depth and books beside tickers."""
    stage.more_kinds = len(MORE_KINDS)
    stage.witness_market()
    count = unplug_again(stage, settings, rng)
    return f"{count} of two unplugged", no_trade_was_missed(stage)


def no_trade_was_missed(stage):
    found = stage.compare_market()
    failures = [f"{name}: {each.failure}" for name, each in stage.witnesses.items() if each.failure]
    failures += [
        f"{name}: nothing" for name, (trades, depths, *_) in found.items() if not trades or not depths
    ]
    trades, depths = (sum(each[at] for each in found.values()) for at in (0, 1))
    missing, doubled, wrong = ([one for each in found.values() for one in each[at]] for at in (2, 3, 4))
    books, wrong_books = books_compared(stage)
    with stage.watch as observer:
        conditions, is_held_up = observer.conditions, bool(observer.held_up)
    told = [(name, flags) for _, name, flags in conditions]
    return [
        none_of("the witnesses heard everything", failures, "; ".join(failures)),
        none_of(
            "no trade is lost", missing, f"{len(missing)} of {trades:,} lost {missing[:3] or ''}".strip()
        ),
        none_of("no trade comes twice", doubled),
        none_of("no depth is wrong", wrong, f"{len(wrong)} of {depths:,} wrong {wrong[:3] or ''}".strip()),
        none_of_books(books, wrong_books),
        none_of("nothing is flagged", [] if is_held_up else told, f"{len(told)} {told[:3] or ''}".strip()),
    ]


def books_compared(stage):
    """Return how many books were held against those of the witnesses, by exchange, and those that are wrong."""
    with stage.watch as observer:
        found = {name: observer.compare_books(name, each) for name, each in stage.witnesses.items()}
    return {name: count for name, (count, _) in found.items()}, [
        w for _, each in found.values() for w in each
    ]


def none_of_books(counts, wrong):
    text = f"{len(wrong)} of {sum(counts.values()):,} wrong {wrong[:3] or ''}".strip()
    missing = [f"{name}: nothing" for name, count in counts.items() if not count]
    return none_of("no book is wrong", wrong + missing, "; ".join([text, *missing]))


def unplug_in_all_markets(stage, settings, rng):
    """One connection at a time, of any market of any exchange: the other leg brings all, in all kinds."""
    stage.wait_for_books()
    for name in stage.exchanges:
        wait_until_settled(stage, name, set())
    before = {name: connections_of(stage, name) for name in stage.exchanges}
    stage.witness(make=MarketsWitness)
    theirs = {name: connections_of(stage, name) - before[name] for name in stage.exchanges}
    until, count = time.monotonic() + settings.seconds * SHARE, 0
    left = list(stage.exchanges)
    while time.monotonic() < until or left:
        exchange = left.pop() if left else rng.choice(stage.exchanges)
        wait_until_settled(stage, exchange, theirs[exchange])
        stage.wait_for_books()
        ours = sorted(connections_of(stage, exchange) - theirs[exchange])
        stage.stack.fault(exchange, "rst", connection=rng.choice(ours))
        count += 1
        stage.pause(rng.uniform(0.0, 1.0), f"{count} unplugged")
    stage.pause(3.0, "the last ones come back")
    wait_for_marks(stage)
    found = stage.compare_market()
    with stage.watch as observer:
        told = [(name, flags) for _, name, flags in observer.conditions]
        is_held_up = bool(observer.held_up)
        ended = [observer.compare_liquidations(name, each) for name, each in stage.witnesses.items()]
    failures = [f"{name}: {each.failure}" for name, each in stage.witnesses.items() if each.failure]
    trades, liquidations = sum(each[0] for each in found.values()), sum(each[0] for each in ended)
    missing, doubled = ([one for each in found.values() for one in each[at]] for at in (2, 3))
    wrong = [one for each in ended for one in each[1]]
    return f"{count} unplugged, of {len(MARKETS)} markets", [
        none_of("the witnesses heard everything", failures, "; ".join(failures)),
        none_of(
            "no trade is lost", missing, f"{len(missing)} of {trades:,} lost {missing[:3] or ''}".strip()
        ),
        none_of("no trade comes twice", doubled),
        none_of(
            "each liquidation comes once",
            wrong,
            f"{len(wrong)} of {liquidations:,} do not {wrong[:3] or ''}".strip(),
        ),
        none_of("nothing is flagged", [] if is_held_up else told, f"{len(told)} {told[:3] or ''}".strip()),
    ]


def kills_in_all_markets(stage, settings, rng):
    """Feeds and merger: each trade that is lost is told, none comes twice, and all markets come back."""
    stage.wait_for_books()
    stage.witness(make=MarketsWitness)
    fewer = settings._replace(kills=max(1, settings.kills // 3))
    did, claims = kill_again(stage, fewer, rng, [*stage.exchanges, "merger"])
    stage.pause(3.0, "the last one comes back")
    stage.wait_for_books()
    wait_for_marks(stage)
    for witness in stage.witnesses.values():
        witness.close()
    time.sleep(3.0)  # what is under way
    with stage.watch as observer:
        found = [observer.compare_market(name, each) for name, each in stage.witnesses.items()]
        untold = [one for name, each in stage.witnesses.items() for one in observer.untold(name, each)]
        doubled = [one for name, each in stage.witnesses.items() for one in observer.too_often(name, each)]
    trades, missing = sum(each[0] for each in found), sum(len(each[2]) for each in found)
    text = f"{missing} of {trades:,} lost {untold[:3] or ''}".strip()
    return did, [
        *claims,
        none_of("each trade that is lost is told", untold, text),
        none_of("no trade comes twice", [one for each in found for one in each[3]]),
        none_of("no liquidation comes too often", doubled),
    ]


def wait_for_marks(stage):
    """Wait until each mark price was the one that was witnessed last, at some moment: they go on."""
    left = {(name, symbol) for name, each in stage.witnesses.items() for symbol in each.marks}

    def look():
        with stage.watch as observer:
            for name, symbol in sorted(left):
                if observer.marks.get(f"contract.{name}.{symbol}") == stage.witnesses[name].marks[symbol]:
                    left.discard((name, symbol))
        return not left

    wait_until(look, f"mark prices as they are witnessed: {left}", PATIENCE_S)


def connections_of(stage, exchange):
    """The simulator's numbers of all connections that have subscribed to something."""
    return {c["connection"] for c in stage.stack.sim_state(exchange)["connections"] if c["subscriptions"]}


def wait_until_settled(stage, exchange, theirs):
    wait_until(lambda: are_settled(stage, exchange, theirs), f"all legs of {exchange} are there", PATIENCE_S)


def are_settled(stage, exchange, theirs):
    """True if each leg of each market runs, and has been there for a while; theirs are the witnesses' connections.

    The simulator knows at once that one is gone, the status a second later.
    """
    feed, sockets = stage.status(exchange), stage.stack.sim_state(exchange)["connections"]
    connections = feed["connections"] if feed else []
    markets = OFFERED[exchange].markets
    ours = [each for each in sockets if each["subscriptions"] and each["connection"] not in theirs]
    return (
        len(ours) == 2 * sum(len(market.paths) for market in markets)
        and len(connections) == 2 * len(markets)
        and all(c["phase"] == "running" and not c["pending_topics"] for c in connections)
        and all(each["age_s"] > BOOKS_KNOWN_S for each in sockets)
    )


def both_hear_all(stage, exchange, more_than):
    """How often connections were made, if that was more often, and both have heard each channel."""
    feed = stage.status(exchange)
    connections = feed["connections"] if feed else []
    is_complete = len(connections) == 2 and all(
        c["phase"] == "running" and not c["quiet"] and not c["pending_topics"] for c in connections
    )
    connects = sum(c["connects"] for c in connections)
    return connects if is_complete and connects > more_than else 0


def subscribed(stage, exchange):
    """The simulator's numbers of our two connections, once both have all their subscriptions."""
    connections = stage.stack.sim_state(exchange)["connections"]
    count = topics_of(exchange) + stage.more_kinds * len(MAJORS)
    ours = [c["connection"] for c in connections if len(c["subscriptions"]) == count]
    return sorted(ours) if len(ours) == 2 else None


def nothing_was_missed(stage):
    """What is claimed wherever connections end and others stand in for them."""
    found = stage.compare()
    missing = [each for _, lost in found.values() for each in lost]
    expected = sum(count for count, _ in found.values())
    failures = [f"{name}: {each.failure}" for name, each in stage.witnesses.items() if each.failure]
    with stage.watch as observer:
        flagged = [(name, flags) for name, flags in observer.unexplained() if name in WANTED]
        held_up = len(observer.held_up)
    failures += [f"{name}: nothing" for name, (count, _) in found.items() if not count]
    counts = ", ".join(f"{name} {count:,}" for name, (count, _) in found.items())
    excuse = f"; {held_up} times a process was held up" if held_up else ""
    return [
        none_of("the witnesses heard everything", failures, "; ".join(failures) or counts),
        none_of(
            "no update id is lost",
            missing,
            f"{len(missing)} of {expected:,} lost {missing[:3] or ''}".strip(),
        ),
        none_of("nothing is flagged", flagged, f"{len(flagged)} {flagged[:3] or ''}".strip() + excuse),
    ]


# --- symbols that come and go


def guests(stage, settings, rng):
    """Others are subscribed and let go again, while connections are renewed."""
    stage.witness()
    until = time.monotonic() + settings.seconds * SHARE
    count, slowest_s = 0, 0.0
    while time.monotonic() < until or count < len(EXCHANGES):
        exchange, symbol = EXCHANGES[count % len(EXCHANGES)], rng.choice(GUESTS)
        topic = f"ticker.{exchange}.{symbol}"
        asked_ns = time.time_ns()
        stage.command("subscribe", exchange, symbol)
        stage.heal(asked_ns, PATIENCE_S, [topic])
        slowest_s = max(slowest_s, seconds_since(asked_ns))
        stage.pause(rng.uniform(0.0, 1.0), f"{count} have come and gone")
        stage.command("unsubscribe", exchange, symbol)
        wait_until(lambda topic=topic: stage.is_down(topic), f"the last word of {topic}", PATIENCE_S)
        count += 1
    renewed = sum(renewals(stage).values())
    return f"{count} came and went beside {renewed} renewals", [
        Claim("each is live, and says DOWN when it goes", f"live after {slowest_s:.1f} s at most", True),
        *nothing_was_missed(stage),
    ]


# --- whatever may happen


def faults(stage, settings, rng):
    """Anything at random exchanges; then nothing more."""
    with stage.watch as observer:
        observer.begin()
        observer.lie_after_ns = int((SILENT_AFTER_S + NOISE_S) * NS_PER_S)
    started, count = time.monotonic(), Counter()
    for at_s, exchange, kind, fields in schedule(rng, settings.seconds * 2 * SHARE):
        stage.pause(started + at_s - time.monotonic(), f"{sum(count.values())} faults")
        order(stage, exchange, kind, fields, rng)
        count[kind] += 1
    for exchange in EXCHANGES:
        stage.stack.fault(exchange, "none")
    ended_ns = time.time_ns()
    stage.heal(ended_ns, PATIENCE.heals_s + NOISE_S)
    healed_s = seconds_since(ended_ns)
    with stage.watch as observer:
        lies, falls = observer.lies, observer.falls
        silence_s, flagged = observer.silence_max_ns / NS_PER_S, len(observer.flagged)
        observer.lie_after_ns = None
    # A connection that is new does not know yet where data must come: `stale_after_s` holds seconds later.
    limit_s = SILENT_AFTER_S + NOISE_S
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(count.items()))
    return f"{sum(count.values())} faults: {kinds}", [
        none_of("no ticker moves backwards", falls),
        none_of(
            f"what is silent for {SILENT_AFTER_S:g} s is flagged",
            lies,
            f"{flagged} times flagged, longest without {silence_s:.1f} s of {limit_s:g} {lies[:3] or ''}".strip(),
        ),
        Claim(f"all live {PATIENCE.heals_s:g} s after the last", f"{healed_s:.1f} s", True),
    ]


# Fields of each fault; those that are not here in some range break what is told of a symbol for longer than an act.
KINDS = {
    "close": lambda rng: {"code": rng.choice((1000, 1001, 1012, 1013)), "reason": "chaos"},
    "rst": lambda rng: {},
    "rst one": lambda rng: {},
    "stall": lambda rng: {"seconds": round(rng.uniform(1, 40), 1), "answer_pings": rng.random() < 0.5},
    "mute": lambda rng: {"seconds": round(rng.uniform(1, 40), 1)},
    "ack_without_data": lambda rng: {"seconds": round(rng.uniform(1, 5), 1)},
    "garbage": lambda rng: {"count": rng.randrange(1, 40)},
    "oversize": lambda rng: {"size": rng.randrange(1_500_000, 3_000_000)},
    "refuse": lambda rng: {"seconds": round(rng.uniform(0.5, 5), 1), "how": rng.choice(("rst", "503"))},
    "http_status": lambda rng: {
        "status": rng.choice((403, 418, 429, 503)),
        "seconds": round(rng.uniform(1, 5), 1),
        "retry_after": rng.randrange(1, 4),
    },
    "duplicate": lambda rng: {"count": rng.randrange(1, 50)},
    "late": lambda rng: {"count": rng.randrange(1, 50)},
    "fragment": lambda rng: {"seconds": round(rng.uniform(1, 5), 1)},
    "clock": lambda rng: {
        "offset_s": round(rng.uniform(-100, 100), 1),
        "seconds": round(rng.uniform(1, 5), 1),
    },
    "expired_token": lambda rng: {"keep_open": rng.random() < 0.3},
    "server_shutdown": lambda rng: {"seconds": round(rng.uniform(0.5, 4), 1)},
}


def schedule(rng, seconds):
    """Return what goes wrong when: (second, exchange, kind, fields)."""
    plan, at_s = [], 0.0
    while (at_s := at_s + rng.uniform(0.2, 1.6)) < seconds or not plan:
        exchange = rng.choice(EXCHANGES)
        kind = rng.choice([kind for kind in KINDS if exchange in ONLY_ON.get(kind, EXCHANGES)])
        plan.append((at_s, exchange, kind, KINDS[kind](rng)))
    return plan


def order(stage, exchange, kind, fields, rng):
    """Give a fault to the simulator; one connection of several is the rng's choice."""
    which = rng.random()
    if kind == "rst one":
        connections = [c["connection"] for c in stage.stack.sim_state(exchange)["connections"]]
        kind = "rst"
        fields = {"connection": connections[int(which * len(connections))]} if connections else {}
    try:
        stage.stack.fault(exchange, kind, **fields)
    except urllib.error.HTTPError as exc:
        reason = exc.read().decode()
        if "no connection" not in reason:  # it went by itself meanwhile
            raise AssertionError(f"{exchange} has no fault {kind} {fields}: {reason}") from None


# --- processes that die


def kills(stage, settings, rng):
    """Any process, at times two at once, each time once everything is live again."""
    names = sorted(set(stage.programs()) - {"supervisord", "sim"})
    return kill_again(stage, settings, rng, names, ["sim"])


def kills_with_trades(stage, settings, rng):
    """Feeds and merger, while trades are compared with what the exchange said, which lives on."""
    stage.witness_market()
    names = [*EXCHANGES, "merger"]
    did, claims = kill_again(stage, settings, rng, names)
    ended_s = time.monotonic()
    stage.pause(3.0, "the last one comes back")
    stage.wait_for_books()
    again_s = time.monotonic() - ended_s
    time.sleep(1.0)
    for witness in stage.witnesses.values():
        witness.close()
    time.sleep(3.0)  # what is under way
    with stage.watch as observer:
        found = [observer.compare_market(name, each) for name, each in stage.witnesses.items()]
        untold = [one for name, each in stage.witnesses.items() for one in observer.untold(name, each)]
    trades, missing = sum(each[0] for each in found), sum(len(each[2]) for each in found)
    return did, [
        *claims,
        none_of(
            "each trade that is lost is told",
            untold,
            f"{missing} of {trades:,} lost {untold[:3] or ''}".strip(),
        ),
        none_of("no trade comes twice", [one for each in found for one in each[3]]),
        none_of("no depth is wrong", [one for each in found for one in each[4]]),
        none_of_books(*books_compared(stage)),
        Claim("all books are valid again", f"{again_s:.1f} s after the last", True),
    ]


def kill_again(stage, settings, rng, names, seldom=()):
    done, slowest = Counter(), (0.0, "")
    while sum(done.values()) < settings.kills:
        victims = choose(rng, names, settings.kills - sum(done.values()), seldom)
        old = stage.programs()
        if "sim" in victims:
            with stage.watch as observer:
                for exchange in stage.exchanges:
                    observer.allow_restart(exchange)
        killed_s = time.monotonic()
        for victim in victims:
            os.kill(old[victim], signal.SIGKILL)
        restarted_ns = wait_until(
            lambda old=old, victims=victims: has_restarted(stage, old, victims) and time.time_ns(),
            f"{' and '.join(victims)} started again",
            PATIENCE_S,
        )
        stage.heal(restarted_ns, PATIENCE.heals_s + NOISE_S)
        slowest = max(slowest, (time.monotonic() - killed_s, " and ".join(victims)))
        done.update(victims)
        stage.pause(rng.uniform(0.0, 1.5), f"{sum(done.values())} of {settings.kills} killed")
    with stage.watch as observer:
        falls = observer.falls
    killed = ", ".join(f"{name} {number}" for name, number in sorted(done.items()))
    return f"{sum(done.values())} killed: {killed}", [
        Claim(
            f"all live {PATIENCE.heals_s:g} s after each", f"longest {slowest[0]:.1f} s, {slowest[1]}", True
        ),
        none_of("no ticker moves backwards", falls),
    ]


def choose(rng, names, left, seldom):
    """One victim or two; the simulator less often, for it takes everything along."""
    victims = list(dict.fromkeys(rng.sample([*names * 2, *seldom], 2)))
    return victims[: 2 if rng.random() < 0.2 and left > 1 else 1]


def has_restarted(stage, old, victims):
    present = stage.programs()
    return all(present.get(victim, old[victim]) != old[victim] for victim in victims)


# --- a channel that falls silent


def silence(stage, settings, rng):
    """One channel's data stop while its market goes on: told in time, and over when they return."""
    stage.pause(LEARNS_S, "what is usual is learned")
    told_s, healed_s, others = [], [], []
    until = time.monotonic() + settings.seconds * SHARE
    while time.monotonic() < until or not told_s:
        silent = {exchange: rng.choice(MAJORS[:3]) for exchange in EXCHANGES}
        seconds, flagged = mute(stage, silent)
        told_s.append(seconds)
        others += flagged
        healed_s.append(unmute(stage, [f"ticker.{exchange}.{symbol}" for exchange, symbol in silent.items()]))
    return f"{3 * len(told_s)} channels fell silent", [
        Claim(f"flagged within {SILENT_AFTER_S:g} s", f"{max(told_s):.1f} s at most", True),
        Claim("live again by itself", f"{max(healed_s):.1f} s at most", True),
        none_of("no other instrument is flagged", others),
    ]


def mute(stage, silent):
    """Stop the quotes of one symbol of each exchange: how long until all are flagged, and what else was by then."""
    topics = [f"ticker.{exchange}.{symbol}" for exchange, symbol in silent.items()]
    with stage.watch as observer:
        observer.begin()
    started = time.monotonic()
    for exchange, symbol in silent.items():
        # After it was silent before it is subscribed to anew: for a moment it is not.
        silenced = functools.partial(loses_quotes, stage, exchange, symbol)
        wait_until(silenced, f"{exchange} has {symbol} subscribed")
    wait_until(
        lambda: all(is_stale(stage, topic) for topic in topics),
        f"{', '.join(topics)} flagged",
        SILENT_AFTER_S + NOISE_S,
    )
    told_s = time.monotonic() - started
    with stage.watch as observer:
        return told_s, [each for each in observer.unexplained() if each[0] not in topics]


def loses_quotes(stage, exchange, symbol):
    try:
        stage.stack.lose_quotes(exchange, symbol)
    except urllib.error.HTTPError as exc:
        if exc.code != 400:
            raise
        return False
    return True


def unmute(stage, topics):
    """End it. Returns how long it took until they were live."""
    cleared_ns = time.time_ns()
    for exchange in EXCHANGES:
        stage.stack.fault(exchange, "none")
    stage.heal(cleared_ns, ASKED_AGAIN_S + NOISE_S, topics)
    return seconds_since(cleared_ns)


def is_stale(stage, topic):
    with stage.watch as observer:
        return any(each.name == topic and each.flags & STALE for each in observer.topics.values())


# --- markets in which hardly anything happens


def quiet(stage, settings, rng):
    """Most symbols rest for minutes: nothing is wrong with them. What is wrong beside them is found."""
    topics = {name: [f"ticker.{name}.{symbol}" for symbol in QUIET_SYMBOLS] for name in EXCHANGES}
    ages_s, missing = first_quotes(stage, topics)
    slowest_s = max(ages_s.values(), default=0.0)
    with stage.watch as observer:
        observer.begin()
        flagged = observer.flagged_now()
    opened = connections_opened(stage)
    stage.pause(settings.quiet, "nothing happens")
    again = {name: count - opened[name] for name, count in connections_opened(stage).items()}
    with stage.watch as observer:
        flagged += [name for name, _ in observer.unexplained()]
        changed = sum(topic.changes > 0 for topic in observer.topics.values())
    claims = [
        Claim(
            f"every symbol has a quote {FIRST_QUOTE_S:g} s after it is connected",
            f"{len(missing)} without: {missing[:3]}" if missing else f"{slowest_s:.1f} s at most",
            not missing and slowest_s <= FIRST_QUOTE_S + NOISE_S,
        ),
        none_of("no record is STALE or DOWN", flagged),
        Claim("no connection is made anew", str(again), not any(again.values())),
    ]
    told_s, others = mute(stage, dict.fromkeys(EXCHANGES, BUSY))
    claims += [
        Claim(f"a muted channel is flagged within {SILENT_AFTER_S:g} s", f"{told_s:.1f} s at most", True),
        none_of("no other instrument is flagged then", others),
    ]
    unmute(stage, [f"ticker.{name}.{BUSY}" for name in EXCHANGES])
    found_s = half_open(stage)
    claims.append(
        Claim(
            f"a half-open connection is replaced within {HALF_OPEN_S:g} s",
            f"{found_s:.1f} s at most",
            found_s <= HALF_OPEN_S + NOISE_S,
        )
    )
    total = sum(map(len, topics.values()))
    return f"{total} symbols, of which {changed} changed in {settings.quiet:g} s", claims


def first_quotes(stage, topics):
    """Return how old each connection was when all its symbols had quotes; and those that have none."""
    ages_s, missing = {}, {}

    def look():
        for name in EXCHANGES:
            with stage.watch as observer:
                missing[name] = observer.without_quote(topics[name])
            if name not in ages_s and not missing[name]:
                ages_s[name] = max(c["age_s"] for c in stage.stack.sim_state(name)["connections"])
        stage.say(f"{len(ages_s)} exchanges have all quotes")
        return len(ages_s) == len(EXCHANGES)

    wait_until(lambda: is_connected(stage), "connected to all exchanges", PATIENCE_S)
    with contextlib.suppress(AssertionError):
        wait_until(look, "", QUOTES_AFTER_S)
    return ages_s, [topic for each in missing.values() for topic in each]


def is_connected(stage):
    with contextlib.suppress(OSError):  # until the simulator listens
        return all(stage.stack.sim_state(name)["connections"] for name in EXCHANGES)
    return False


def connections_opened(stage):
    return {name: stage.stack.sim_state(name)["connections_opened"] for name in EXCHANGES}


def half_open(stage):
    """Let all connections be half open. Returns how long it took until there were others for each."""
    opened = connections_opened(stage)
    started = time.monotonic()
    for exchange in EXCHANGES:
        stage.stack.fault(exchange, "half_open")
        opened[exchange] += len(stage.stack.sim_state(exchange)["connections"])
    wait_until(
        lambda: all(count >= opened[name] for name, count in connections_opened(stage).items()),
        "half-open connections replaced",
        PATIENCE_S,
    )
    return time.monotonic() - started


# --- the whole


def same_legs(legs, max_age_s=0.0, kinds=()):
    lines = f"legs = {legs}\nmax_age_s = {max_age_s}"
    return lambda rng: f"{lines}\nkinds = {json.dumps(['ticker', *kinds])}"


def all_kinds(rng):
    """Two legs, and all markets in all of their kinds."""
    lines = {}
    for name in ALL:
        rows = [row for (exchange, symbols), row in MARKETS.items() if exchange == name and symbols is LINEAR]
        kinds = ["ticker", *MORE_KINDS, *["contract"] * len(rows)]
        kinds += ["liquidation"] if any(row.has_liquidations for row in rows) else []
        symbols = json.dumps(symbols_of(name))
        lines[name] = f"legs = 2\nkinds = {json.dumps(kinds)}\nsymbols = {symbols}"
    return lines


def any_legs(max_age_s=0.0):
    return lambda rng: {name: PATIENCE.lines(rng.choice((1, 2)), max_age_s) for name in EXCHANGES}


def any_shards(rng):
    return {name: f"{lines}\nshards = {rng.choice((1, 2))}" for name, lines in any_legs()(rng).items()}


ACTS = (
    Act("rollover, one leg", same_legs(1, MAX_AGE_S), rollover),
    Act("rollover, two legs", same_legs(2, MAX_AGE_S), rollover),
    Act("unplugging one of two", same_legs(2), unplug),
    Act("trades, unplugging one of two", same_legs(2, kinds=MORE_KINDS), unplug_with_trades),
    Act(
        "all markets, unplugging one of two",
        all_kinds,
        unplug_in_all_markets,
        sim=BUSY_MARKETS,
        expected={name: symbols_of(name) for name in ALL},
    ),
    Act("symbols come and go", same_legs(2, MAX_AGE_S), guests),
    Act("a silent channel", same_legs(1), silence),
    Act("random faults", any_legs(15.0), faults),
    Act("kills", any_shards, kills),
    Act("kills with trades", same_legs(2, kinds=MORE_KINDS), kills_with_trades),
    Act(
        "kills in all markets",
        all_kinds,
        kills_in_all_markets,
        sim=BUSY_MARKETS,
        expected={name: symbols_of(name) for name in ALL},
    ),
    Act("quiet markets", same_legs(1), quiet, QUIET_SYMBOLS, QUIET_MARKET, Stage.launch),
)


def perform(act, directory, settings, rng):
    """Play one act; returns what was done, and its claims with those that hold for every act."""
    extra = act.extra(rng)
    with Stage(
        directory, settings.rate, extra, symbols=act.symbols, sim=act.sim, expected=act.expected
    ) as stage:
        try:
            act.begin(stage)
            did, claims = act.play(stage, settings, rng)
        except Exception as exc:  # noqa: BLE001  whatever it is, other acts are to be played
            text = str(exc) if isinstance(exc, AssertionError) else "".join(traceback.format_exception(exc))
            did, claims = "broken off", [Claim("it comes to its end", text, False)]
        with stage.watch as observer:
            holes, records = observer.holes, observer.records
        return f"{did}; {records:,} records", [
            *claims,
            none_of("no hole in a session's sequence", holes),
            none_of("no rule of an exchange is broken", stage.violations()),
            none_of("no process fails by itself", stage.tracebacks()),
            none_of("nothing is left behind", stage.leave()),
        ]
