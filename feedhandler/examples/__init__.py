"""Configurations to start from: `demo.toml`, and `live.toml`, which `feedhandler init` copies."""

import json
from pathlib import Path
from typing import Final

from feedhandler.data.errors import ConfigError

FOLDER: Final = Path(__file__).parent
DEMO: Final = FOLDER / "demo.toml"
LIVE: Final = FOLDER / "live.toml"
RECORDED: Final = Path("run/demo/recorded.toml")  # beside what the demo keeps
RECORDER: Final = """
[recorder]
directory = {}
max_size_gb = 10.0
min_free_gb = 0.5
"""


def write(path: Path) -> None:
    """Write a configuration of the real exchanges, with comments. Raises ConfigError, also if a file is there."""
    text = LIVE.read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{path}: is there already, and stays as it is; name another FILE, or remove it first"
        ) from None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}; name another FILE") from exc


def write_recorded(directory: str) -> Path:
    """Write the demo's configuration with a recorder that writes to a directory. Raises ConfigError."""
    text = DEMO.read_text(encoding="utf-8") + RECORDER.format(json.dumps(directory))
    try:
        RECORDED.parent.mkdir(parents=True, exist_ok=True)
        RECORDED.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{RECORDED}: cannot be written: {exc.strerror}") from exc
    return RECORDED
