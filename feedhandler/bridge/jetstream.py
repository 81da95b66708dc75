"""The stream of JetStream that keeps the records: created, or given its limits, at each connection."""

import logging

import nats.errors
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from feedhandler.bridge.subjects import stream_subjects
from feedhandler.data.errors import ConfigError
from feedhandler.runtime.settings import NatsConfig

log = logging.getLogger(__name__)


async def prepare_stream(stream: JetStreamContext, config: NatsConfig, where: str) -> None:
    """Create the stream, or set its limits. Raises ConfigError if it is another one, or cannot be had."""
    wanted = StreamConfig(
        name=config.stream,
        subjects=stream_subjects(config.prefix),
        storage=StorageType(config.storage),
        num_replicas=config.replicas,
        discard=DiscardPolicy.OLD,
        max_bytes=config.max_bytes,
        max_age=config.max_age_s,
        max_msgs_per_subject=config.max_msgs_per_subject or -1,
    )
    try:
        try:
            there = (await stream.stream_info(config.stream)).config
        except js_errors.NotFoundError:
            await stream.add_stream(wanted)
            log.info("created the stream %s", config.stream)
            return
        if reason := difference(there, wanted):
            raise ConfigError(
                f"{where}.stream: the server has a stream {config.stream} already, and {reason}; choose another"
                f" name, or remove it (`nats stream rm {config.stream}`)"
            )
        limits = {
            name: getattr(wanted, name)
            for name in ("max_bytes", "max_age", "max_msgs_per_subject", "discard", "num_replicas")
        }
        if any(getattr(there, name) != value for name, value in limits.items()):
            await stream.update_stream(there.evolve(**limits))
            log.info("set the limits of the stream %s", config.stream)
    except js_errors.BadRequestError as exc:
        raise ConfigError(
            f"{where}.stream: the server refuses the stream {config.stream}: {exc.description}"
        ) from exc
    except (js_errors.ServiceUnavailableError, nats.errors.NoRespondersError) as exc:
        raise nats.errors.Error(f"JetStream is not there ({exc}): start nats-server with -js") from exc


def difference(there: StreamConfig, wanted: StreamConfig) -> str:
    """Return what of a stream is not as it has to be, and is not for us to change; "" if nothing."""
    if set(there.subjects or ()) != set(wanted.subjects or ()):
        has, needs = ", ".join(there.subjects or ("none",)), ", ".join(wanted.subjects or ())
        return f"its subjects are {has}, not {needs}"
    if there.storage != wanted.storage:
        has, needs = (StorageType(each.storage).value for each in (there, wanted))
        return f"its storage is {has}, not {needs}"
    if there.mirror or there.sources or there.sealed:
        return "it is a mirror of another, or sealed"
    return ""
