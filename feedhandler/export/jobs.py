"""What is to be exported, and what has been: a run of a recording is a job, and has its own files.

A manifest says what input gave what output. So a job that was interrupted is done again as a whole, one that is
done is not, and one whose recording has grown replaces its files. What retention has taken from a recording stays
in what was exported; what follows is a job of its own.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data.errors import UNDECODABLE, ConfigError
from feedhandler.export.formats import BOOKS, FORMATS
from feedhandler.recordings.directory import SUFFIX
from feedhandler.recordings.runs import Run

MANIFEST: Final = "manifest.json"
VERSION: Final = 1
GAP: Final = "gap"


class Options(msgspec.Struct, frozen=True):
    """How a directory of exports is made: the same for all that is in it."""

    format: str = FORMATS[0]
    books: str = BOOKS[0]
    symbols: tuple[str, ...] = ()


class Made(msgspec.Struct, frozen=True):
    """A file, and how many rows it has."""

    path: str
    rows: int
    size: int = 0


class Input(msgspec.Struct, frozen=True):
    """A file that was read."""

    name: str
    size: int
    mtime_ns: int
    sha256: str


class Exported(msgspec.Struct, kw_only=True):
    """What a job has come to.

    last_ns is the time of its last record; unnamed are records left out, since several instruments claim a symbol.
    """

    kinds: tuple[str, ...]
    exchange: str = ""  # whose traffic it was said to be
    inputs: list[Input]
    was_open: bool = False  # the last of them was being written
    outputs: list[Made] = []
    records: int = 0
    gaps: int = 0
    missing: int = 0  # items that the gaps tell of
    last_ns: int = 0
    unnamed: int = 0
    undecodable: int = 0  # frames
    elsewhere: dict[str, int] = {}  # frames of markets that are not decoded, by what they are of
    symbols: tuple[str, ...] = ()  # those of the options of which there was something
    problems: list[str] = []


class Manifest(msgspec.Struct, kw_only=True):
    """All that a directory has, by job."""

    version: int = VERSION
    options: Options
    runs: dict[str, Exported] = {}


class Job(msgspec.Struct, frozen=True):
    """One run, or what is left of it.

    replaces are jobs whose files go. What is not later than after_ns was exported before.
    """

    name: str
    run: Run
    kinds: tuple[str, ...]
    options: Options
    exchange: str = ""  # whose traffic it is, if the run does not tell
    replaces: tuple[str, ...] = ()
    after_ns: int = 0

    @property
    def size(self) -> int:
        """Bytes to be read."""
        return sum(path.stat().st_size for path in self.run.files)


def read(out: Path, options: Options) -> Manifest:
    """Return the manifest of a directory, a new one if it has none. Raises ConfigError if it is made otherwise."""
    path = out / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if out.is_dir() and any(not each.name.startswith(".") for each in out.iterdir()):
            raise ConfigError(
                f"{out} has files, and no {MANIFEST}: name an empty directory, or a new one"
            ) from None
        return Manifest(options=options)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except UNDECODABLE as exc:
        raise ConfigError(f"{path} cannot be read: {exc}; name another directory") from exc
    if manifest.version != VERSION:
        raise ConfigError(
            f"{path} is of version {manifest.version}, and this is {VERSION}: name another directory"
        )
    for name in Options.__struct_fields__:
        was, is_now = getattr(manifest.options, name), getattr(options, name)
        if was != is_now:
            raise ConfigError(
                f"{out} was made with --{name} {_shown(was)}, not {_shown(is_now)}:"
                " say the same, or name another directory"
            )
    return manifest


def _shown(value: str | tuple[str, ...]) -> str:
    text = value if isinstance(value, str) else ",".join(value)
    return text or "(none)"


def write(out: Path, manifest: Manifest) -> None:
    """Replace the manifest of a directory, at once."""
    part = out / f".{MANIFEST}"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    part.replace(out / MANIFEST)


def plan(
    runs: Sequence[Run], manifest: Manifest, kinds: tuple[str, ...], out: Path, exchange: str = ""
) -> list[Job]:
    """Return what is to be done, the largest first. Raises ConfigError for what cannot be done any more."""
    jobs = [job for run in runs if (job := _job(run, manifest, kinds, out, exchange)) is not None]
    return sorted(jobs, key=lambda job: (-job.size, job.name))


def _job(run: Run, manifest: Manifest, kinds: tuple[str, ...], out: Path, exchange: str) -> Job | None:
    names = [input_name(run, path) for path in run.files]
    known = {
        name: entry
        for name, entry in manifest.runs.items()
        if any(each.name in names for each in entry.inputs)
    }
    frozen = {name: e for name, e in known.items() if any(each.name not in names for each in e.inputs)}
    files = run.files
    for entry in frozen.values():
        if lacking := [kind for kind in kinds if kind not in entry.kinds]:
            raise ConfigError(
                f"{run.feed}: was exported without {', '.join(lacking)}, and a part of that recording is gone:"
                f" say --kinds {','.join(entry.kinds)}, or name another directory"
            )
        kept = [place for place, path in enumerate(run.files) if _is_input(run, path, entry)]
        files = run.files[max(kept) + 1 :] if kept and len(run.files) - max(kept) - 1 < len(files) else files
    if not files:
        return None
    left = run if files == run.files else msgspec.structs.replace(run, files=files)
    name = left.name if files == run.files else f"{run.feed}-{files[0].name.removesuffix(SUFFIX)}"
    others = tuple(each for each in known if each not in frozen)
    present = manifest.runs.get(name)
    if present is not None:
        is_same = (present.exchange, present.was_open) == (exchange, left.is_open) and others in ((), (name,))
        if is_same and _is_current(left, present, kinds, out):
            return None
        kinds = tuple(dict.fromkeys((*present.kinds, *kinds)))
    after_ns = max((entry.last_ns for entry in frozen.values()), default=0)
    return Job(name, left, kinds, manifest.options, exchange, tuple(sorted({*others, name})), after_ns)


def input_name(run: Run, path: Path) -> str:
    """Return what a file is called wherever it lies."""
    return run.name if run.is_capture else f"{run.feed}/{path.name}"


def _is_current(run: Run, entry: Exported, kinds: tuple[str, ...], out: Path) -> bool:
    return (
        set(kinds) <= set(entry.kinds)
        and len(run.files) == len(entry.inputs)
        and all(_is_input(run, path, entry) for path in run.files)
        and all(_size(out / made.path) == made.size for made in entry.outputs)
    )


def _is_input(run: Run, path: Path, entry: Exported) -> bool:
    """Return whether a file is as it was when it was read; its time alone may differ, if it was copied."""
    was = next((each for each in entry.inputs if each.name == input_name(run, path)), None)
    if was is None:
        return False
    status = path.stat()
    if status.st_size != was.size:
        return False
    return status.st_mtime_ns == was.mtime_ns or digest(path) == was.sha256


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def looked_at(run: Run) -> list[Input]:
    """Return the files of a run as they are now."""
    found = []
    for path in run.files:
        status = path.stat()
        found.append(Input(input_name(run, path), status.st_size, status.st_mtime_ns, digest(path)))
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
