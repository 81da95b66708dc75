"""What README and documents tell people to type, as it stands: in a new copy of the checkout, and from a wheel.

Each walk has a network of its own, with the usual ports and nothing beyond (`unshare`). Nothing is downloaded:
packages are those of the present environment; and there is no C compiler, which saves most of the time to install.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import msgspec
import pytest
from harness import PATIENCE_S, STOP_S, wait_until
from test_holdings import CREDENTIALS

from feedhandler.recordings import directory
from feedhandler.recordings.compressed import zstd
from feedhandler.recordings.packing import packed
from feedhandler.recordings.plan import Plan
from feedhandler.recordings.segments import SegmentWriter
from feedhandler.recordings.traffic import Item, What

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
INSTALL_S = 300.0
COMMAND = re.compile(  # one blank behind the name: tables have more
    r"(sudo |sh |\./|\.venv/bin/)?(apt|apt-get|bash|cargo|cc|cp|curl|docker|feedhandler|gcc|git|go|install|make"
    r"|mkdir|nats|node|npm|pip|python3?|python\.sh|ssh|supervisor(?:d|ctl)|systemctl|useradd|wget) (?=[^\s\d])"
)
SHELLS = ("", "sh", "bash", "console")  # languages of a fence
NOT_COPIED = shutil.ignore_patterns(
    *(
        ".git",
        ".venv*",
        ".*_cache",
        ".hypothesis",
        "__pycache__",
        "*.egg-info",
        "*.so",
        "build",
        "dist",
    ),
    *("run", "artifacts", "bench-results", "node_modules", "target"),
)

# Why a command is not walked. One that is neither here nor ends well fails its test.
FIVE = "is one of five commands that follow each other; tests/e2e/test_five_commands.py types them"
TESTS_ITSELF = "is the tests, or takes many minutes of them"
BENCH = "measures, which takes a machine of its own"
TWO_HOSTS = "is of two hosts; tests/e2e/test_beyond.py has both on one"
NOT_WALKED = {
    r"make demo RECORD|\.venv/bin/(feedhandler (captures|export)|python -c)": FIVE,
    r"make (check|test|sim|chaos|soak|sanitize)\b": TESTS_ITSELF,
    r"make bench": BENCH,
    r"feedhandler keys (authorize|list|revoke)|feedhandler tail --endpoint tcp://192\.0\.2\.10": TWO_HOSTS,
    r"feedhandler replay ": "is two that serve and receive; tests/e2e/test_replay_processes.py has both",
    r"(sudo )?(apt|apt-get|useradd|systemctl|install|mkdir|cp)\b": "is for root, and changes the machine",
    r"python3 -m venv /opt/|\.venv/bin/pip install feedhandler-NEW": "is of a host with the service; as for root",
}
# These go on until Ctrl-C, and this is seen before.
ENDLESS = {
    r"make (demo|run)$|feedhandler (demo|run)( -c \S+)?$": "dashboard: http",
    r"feedhandler tail --(kind |topic )trade": "trade.binance.",
    r"feedhandler tail --(kind |topic )depth": "depth.binance.",
    r"feedhandler tail --(kind |topic )book": "book.binance.",
    r"(\.venv/bin/)?feedhandler tail (?!.*--count)": "ticker.binance.",
}
# These start everything, or end it: in a network without the demo that the others are about.
ALONE = re.compile(
    r"make (demo|run|prod|prod-status|prod-stop)\b|feedhandler (run|prod)\b|feedhandler check -c FILE &&"
)


def matching(table, text):
    return next((table[pattern] for pattern in table if re.match(pattern, text)), None)


def commands():
    """Yield the commands in blocks: the document, and the line without its comment."""
    for document in DOCUMENTS:
        fence = None
        for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
            if match := re.match(r"\s*```(\w*)", line):
                fence = match[1] if fence is None else None
            elif (fence is None and line.startswith("    ")) or fence in SHELLS:
                text = re.sub(r"(^|\s)\$ |\s+#\s.*$", "", line.strip())
                if COMMAND.match(text):
                    yield document, text


SHOWN = list(dict.fromkeys(commands()))
OF_A_WHEEL = [
    text for document, text in SHOWN if document == "README.md" and re.match(r"pip |feedhandler ", text)
]
IN_A_CHECKOUT = sorted(
    (
        (document, text)
        for document, text in SHOWN
        if not (document == "README.md" and text in OF_A_WHEEL) and not matching(NOT_WALKED, text)
    ),
    key=lambda shown: not ALONE.match(shown[1]),  # before the demo of the others is there
)


class Island:
    """A network of its own, while this lives, and a directory to type in."""

    HOLD = """\
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
print("up", flush=True)
sys.stdin.read()
"""

    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = environment
        self._running = []
        self._holder = subprocess.Popen(
            ["unshare", "-rn", sys.executable, "-c", self.HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if self._holder.stdout.readline() != b"up\n":
            self.close()
            pytest.skip("needs user namespaces, for a network of its own")

    def start(self, line, folder=None):
        output = (self.folder / "typed.log").open("ab+")
        start = output.seek(0, os.SEEK_END)  # before it can have printed anything
        line = line if re.search(r"[&|;]", line) else f"exec {line}"
        inside = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self._holder.pid), "--"]
        process = subprocess.Popen(
            [*inside, "sh", "-c", line],
            cwd=folder or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self._running.append((process, output, start))
        return process

    def typed(self, process):
        """Return what a command has printed since it was started."""
        output, start = next((each[1], each[2]) for each in self._running if each[0] is process)
        return os.pread(output.fileno(), 1 << 20, start).decode(errors="replace")

    def walk(self, line, folder=None, limit_s=PATIENCE_S):
        """Type a line; returns what it printed, after its end, or, of an endless one, after Ctrl-C."""
        process = self.start(line, folder)
        seen = matching(ENDLESS, line)
        try:
            if seen is None:
                status = process.wait(limit_s)
                assert status == 0, f"{line}: status {status}:\n{self.typed(process)}"
            else:
                self.see(process, seen, limit_s)
                self.interrupt(process)
                assert "Traceback" not in self.typed(process), self.typed(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return self.typed(process)

    def see(self, process, text, limit_s=PATIENCE_S):
        def seen():
            assert process.poll() is None, f"it ended: {self.typed(process)}"
            return text in self.typed(process)

        wait_until(seen, text, limit_s)

    def interrupt(self, process):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(2 * STOP_S)

    def inside(self):
        """Return the pids of whoever is left in this network: daemons."""
        own = self._network(self._holder.pid)
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        return [pid for pid in pids if own and pid != self._holder.pid and self._network(pid) == own]

    @staticmethod
    def _network(pid):
        try:
            return str(Path(f"/proc/{pid}/ns/net").readlink())
        except OSError:
            return ""

    def close(self):
        for process, output, _ in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
            output.close()
        for pid in self.inside():
            os.kill(pid, signal.SIGKILL)
        self._holder.stdin.close()
        self._holder.wait(STOP_S)
        self._holder.stdout.close()


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """All packages that are installed, but for this one: in the search path, so that pip finds them."""
    pytest.importorskip("Cython", reason="needs what a wheel is built with: the extra `test`")
    folder = tmp_path_factory.mktemp("packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"feedhandler|__editable__|.*\.pth$", path.name):
            (folder / path.name).symlink_to(path)
    return folder


def environment_of(packages, home, binaries):
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FEEDHANDLER", "PIP_", "MAKE"))
    }
    return {
        **own,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHON": sys.executable,  # of which make builds .venv
        "PYTHONPATH": str(packages),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "false",  # so it is switched off
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "CC": "/none",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    copy = shutil.copytree(
        ROOT, tmp_path_factory.mktemp("new") / "feedhandler", symlinks=True, ignore=NOT_COPIED
    )
    record(copy)
    return copy


def record(folder):
    """Write what commands about recordings are about: a recorder's directory, and a capture."""
    time_us = 1_790_000_000_000_000
    frames = []
    for number in (1, 2, 3):
        data = {
            "e": "trade",
            "E": time_us,
            "s": "BTCUSDT",
            "t": number,
            "p": "10.0",
            "q": "1.0",
            "T": time_us,
        }
        frames.append({"stream": "btcusdt@trade", "data": {**data, "m": True, "M": True}})
    plan = Plan(exchange="binance", session_ns=time_us * 1000)
    items = [
        Item(What.HEADER, time_us * 1000, data=msgspec.json.encode(plan)),
        Item(What.OPENED, time_us * 1000, connection="spot.1", name="wss://stream.binance.com:9443/stream"),
        *(
            Item(What.RECEIVED, time_us * 1000, 0, "spot.1", number, data=msgspec.json.encode(frame))
            for number, frame in enumerate(frames, 1)
        ),
        Item(What.CLOSED, time_us * 1000, 0, "spot.1", len(frames), "stopping"),
    ]
    path = folder / "recordings" / "binance" / directory.file_name(time_us * 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", buffering=0) as file:
        writer = SegmentWriter(file, time_us * 1000)
        writer.add(packed(items))
        writer.close("stopping")
    lines = [{"t": "connect", "conn": 1, "ts": time_us / 10**6, "addr": items[1].name}]
    lines += [{"t": "recv", "conn": 1, "ts": time_us / 10**6, "data": frame} for frame in frames]
    (folder / "monday.jsonl.zst").write_bytes(zstd().compress(b"\n".join(map(msgspec.json.encode, lines))))


@pytest.fixture(scope="module")
def installed(checkout, packages):
    """The copy, after the first command that README has: which installs."""
    environment = environment_of(packages, checkout.parent, checkout / ".venv" / "bin")
    island = Island(checkout, environment)
    try:
        printed = island.walk("make demo", limit_s=INSTALL_S)
        assert "installing feedhandler into .venv (about a minute)" in printed
        assert "the tick path is Python" in printed
        yield environment
    finally:
        island.close()


@pytest.fixture(scope="module")
def beside_a_demo(checkout, installed):
    """Where a demo runs, which commands are about: with no -c, too."""
    keys = CREDENTIALS["binance"]
    own = {
        "FEEDHANDLER_CONFIG": "conf/demo.toml",
        "BINANCE_API_KEY": keys["key"],
        "BINANCE_API_SECRET": keys["secret"],
    }
    island = Island(checkout, installed | own)
    try:
        demo = island.start("make demo")
        island.see(demo, "kucoin: live")
        yield island
        island.interrupt(demo)
    finally:
        island.close()


@pytest.fixture(scope="module")
def alone(checkout, installed):
    island = Island(checkout, installed)
    try:
        yield island
    finally:
        island.close()


@pytest.mark.parametrize(("document", "text"), IN_A_CHECKOUT, ids=[f"{d}: {t}" for d, t in IN_A_CHECKOUT])
def test_a_command_of_the_documents_runs_as_it_stands(document, text, checkout, request):
    island = request.getfixturevalue("alone" if ALONE.match(text) else "beside_a_demo")
    text = text.replace("FILE", "conf/demo.toml").replace("--seconds 60", "--seconds 3")
    if text.startswith("curl") and not shutil.which("curl"):
        pytest.skip("there is no curl here")
    if text.startswith("feedhandler export"):
        pytest.importorskip("pyarrow")
    island.walk(text.replace("$(cat run/", "$(cat run/demo/"))


def test_what_is_not_walked_is_still_shown():
    for pattern in NOT_WALKED:
        assert any(re.match(pattern, text) for _, text in SHOWN) or "sudo" in pattern, pattern


def test_from_a_wheel_in_another_directory_everything_runs(checkout, packages, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    island = Island(tmp_path, environment_of(packages, tmp_path, venv / "bin"))
    (tmp_path / "elsewhere").mkdir()
    try:
        for text in OF_A_WHEEL:
            if text.startswith("pip "):
                text = text.replace(
                    "https://HOST/PATH/feedhandler.git", f"file://localhost{repository(checkout)}"
                )
                subprocess.run([venv / "bin" / "pip", "uninstall", "-qy", "feedhandler"], check=True)
                island.walk(text, folder=checkout.parent, limit_s=INSTALL_S)
        version = island.walk("feedhandler --version")
        assert "pure Python tick path" in version
        elsewhere = tmp_path / "elsewhere"
        where = island.walk("python -c 'import feedhandler; print(feedhandler.__file__)'", folder=elsewhere)
        assert str(venv) in where

        demo = island.start("feedhandler demo", folder=elsewhere)
        island.see(demo, "kucoin: live")
        printed = island.typed(demo)
        assert "the tick path is Python here" in printed
        assert "git+file://" in printed, "the remedy is of where it came from"
        island.walk("feedhandler status", folder=elsewhere)
        island.walk("feedhandler tail --topic ticker.binance. --count 3", folder=elsewhere)
        island.walk("feedhandler subscribe binance DOGE/USDT -c demo", folder=elsewhere)
        island.walk("feedhandler fault binance stall seconds=1 -c demo", folder=elsewhere)
        assert {path.name for path in elsewhere.iterdir()} == {"run"}
        assert [path.name for path in (elsewhere / "run").iterdir()] == ["demo"]
        island.interrupt(demo)

        island.walk("feedhandler demo --seconds 3", folder=elsewhere)
        for text in OF_A_WHEEL:
            if text.startswith("feedhandler "):
                island.walk(text, folder=elsewhere)
        assert (elsewhere / "feedhandler.toml").exists()
    finally:
        island.close()


def test_a_source_distribution_has_what_a_wheel_is_built_of_and_the_examples(checkout, packages, tmp_path):
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    environment = environment_of(packages, tmp_path, "/nowhere")
    result = subprocess.run(
        [sys.executable, "-c", build],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    examples = {f"feedhandler/examples/{name}.toml" for name in ("demo", "live")}
    assert names >= examples | {
        "setup.py",
        "feedhandler/transport/memory.pyx",
        "feedhandler/feed/batch.pxd",
        "feedhandler/data/raw.pxd",
        "feedhandler/gateway/page/index.html",
    }


def repository(checkout):
    """Return the copy as a repository of git, which README installs from."""
    git = ["git", "-C", str(checkout), "-c", "user.name=walk", "-c", "user.email=walk@example.org"]
    if not (checkout / ".git").exists():
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a copy"]):
            subprocess.run([*git, *arguments], check=True)
    return checkout
