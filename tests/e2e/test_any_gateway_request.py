"""Whatever is asked of the gateway, it answers as its own description says, and never with an error of its own."""

import os
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_S, wait_until
from test_holdings import TOKEN, ask, is_up

# What a valid body means may be refused (no such symbol), so that acceptance is not checked.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,negative_data_rejection"
)
# as far as it comes: what is asked first does not depend on it
SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))


def test_whatever_is_asked_the_answer_is_as_described(stack, monkeypatch):
    monkeypatch.setenv("FEEDHANDLER_API_TOKEN", TOKEN)
    s = stack(rate=50, exchanges=("binance", "kucoin"))
    s.start("sim", "merger", *s.exchanges, "gateway")
    wait_until(lambda: is_up(s), "the gateway")
    s.wait_live()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{s.gateway}/v1/openapi.json",
            *("--header", f"Authorization: Bearer {TOKEN}", "--checks", CHECKS),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--generation-deterministic"),
            *("--max-time", str(SECONDS), "--no-shrink", "--continue-on-failure", "--warnings", "off"),
        ],
        cwd=s.directory,
        capture_output=True,
        text=True,
        timeout=SECONDS + 2 * PATIENCE_S,
        check=False,
    )
    report = "\n".join(line[:300] for line in done.stdout.splitlines())
    assert done.returncode == 0, report
    assert ask(s, "GET", "/v1/status")[0] == 200
    assert s.processes["gateway"].poll() is None
    assert "Traceback" not in s.log("gateway")
