"""The processes of a configuration on this host: whether they run, since when, and what they use."""

import time

import msgspec
from prometheus_client.process_collector import ProcessCollector

from feedhandler.data.processes import (
    BRIDGE,
    GATEWAY,
    MERGER,
    RECORDER,
    RELAY,
    SIM,
    ProcessStatus,
    process_state,
)
from feedhandler.data.shard import shards
from feedhandler.data.units import NS_PER_S
from feedhandler.runtime.settings import Config
from feedhandler.transport import starts
from feedhandler.transport.files import feed_name, lock_owner, read_recorder_status


class Usage(msgspec.Struct, kw_only=True):
    """What a process has used so far, and since when it runs."""

    started_s: float = 0.0
    cpu_s: float = 0.0
    resident_bytes: int = 0
    open_files: int | None = None


def names(config: Config) -> list[str]:
    """Return what the processes are called that are to run on this host: in locks, logs and the supervisor."""
    feeds = [  # and what is beside them
        feed_name(exchange, shard)
        for exchange, settings in config.exchanges.items()
        if not settings.elsewhere
        for shard in shards(settings.shards)
    ]
    feeds += [RECORDER] if config.recorder is not None else []
    found = [SIM] if config.sim is not None else []
    if config.is_merger_elsewhere:  # then this host has feeds and nothing else
        return found + feeds
    return [*found, MERGER, *feeds, RELAY, GATEWAY, *([BRIDGE] if config.nats is not None else [])]


def look(config: Config) -> list[ProcessStatus]:
    """Return how each of them is doing."""
    now_ns = time.time_ns()
    expected = names(config)
    if RECORDER not in expected and lock_owner(config.run_dir, RECORDER):
        expected.append(RECORDER)  # `demo --record` starts one that its configuration does not have
    found = [_look_at(config.run_dir, name, now_ns) for name in expected]
    for each in found:
        if each.process == RECORDER and each.state == "up":
            status = read_recorder_status(config.run_dir)
            each.trouble = status.trouble(now_ns) if status is not None else ""
    return found


def _look_at(run_dir: str, name: str, now_ns: int) -> ProcessStatus:
    pid = lock_owner(run_dir, name)
    noted = starts.read(run_dir, name)
    used = usage(pid) if pid else Usage()
    return ProcessStatus(
        process=name,
        state=process_state(pid, noted, now_ns),
        pid=pid or 0,
        started_ns=int(used.started_s * NS_PER_S),
        restarts=noted.restarts if noted is not None else 0,
        cpu_s=used.cpu_s,
        resident_bytes=used.resident_bytes,
        open_files=used.open_files,
    )


def usage(pid: int) -> Usage:
    """Return what a process uses, as far as the kernel shows it; nothing of one that has gone."""
    found = {
        metric.name: metric.samples[0].value
        for metric in ProcessCollector(pid=lambda: pid, registry=None).collect()
    }
    open_files = found.get("process_open_fds")
    return Usage(
        started_s=found.get("process_start_time_seconds", 0.0),
        cpu_s=found.get("process_cpu_seconds", 0.0),
        resident_bytes=int(found.get("process_resident_memory_bytes", 0)),
        open_files=None if open_files is None else int(open_files),
    )
