"""The notebook of the documents, executed in a network and a directory of its own, in seconds for a minute."""

import base64
import json
import shutil
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S
from test_walk import ROOT, Island, environment_of

NOTEBOOK = ROOT / "docs" / "five-minutes.ipynb"
SECONDS = "2"
PNG = b"\x89PNG\r\n"


def outputs(path):
    """Return all text that a notebook's cells have printed, or shown, and its pictures."""
    text, pictures = [], []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            assert output["output_type"] != "error", output
            shown = output.get("data", {"text/plain": output.get("text", "")})
            text.append("".join(shown.get("text/plain", "")))
            if picture := shown.get("image/png"):
                pictures.append(base64.b64decode(picture))
    return "".join(text), pictures  # what is printed comes in pieces


def check(path):
    """See that it shows the planted gap and no other, what was exported, a picture, and when there was no book."""
    text, pictures = outputs(path)
    for line in ("binance: complete", "kucoin: complete", "bybit: complete", "status 1", "kind=trade"):
        assert line in text
    assert text.count("connected, and it did not come") == 2, "once as text, once as data"
    assert (text.count("┆ true"), text.count("┆ false")) == (2, 2), "the book begins, has a gap, and ends"
    (picture,) = pictures
    assert picture.startswith(PNG)
    assert len(picture) > 10_000
    return picture


@pytest.mark.e2e
def test_the_notebook_finds_what_it_has_planted(tmp_path):
    for package in ("ipykernel", "matplotlib", "nbclient", "polars", "pyarrow"):
        pytest.importorskip(package)
    copy = shutil.copy(NOTEBOOK, tmp_path)
    bin_folder = Path(sys.executable).parent
    settings = {"FIVE_MINUTES_SECONDS": SECONDS, "TMPDIR": str(tmp_path)}
    island = Island(tmp_path, environment_of(tmp_path, tmp_path, bin_folder) | settings)
    try:
        island.walk(f"{bin_folder}/jupyter-execute --inplace {copy}", limit_s=2 * PATIENCE_S)
        assert not island.inside(), "it ends what it has started"
    finally:
        island.close()
    check(Path(copy))


def test_readers_see_what_it_has_shown_after_a_minute():
    """As it is stored with the documents it has outputs of an execution, small and without anybody's directory."""
    assert len(check(NOTEBOOK)) < 150_000
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"execution_count": null' not in text
    assert "/home/" not in text
    assert "/tmp/" not in text
