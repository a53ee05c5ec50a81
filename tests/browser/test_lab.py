"""JupyterLab as `make lab` starts it: two notebooks are opened, run from the menu, and looked at."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from helpers.runtime import project_root

LIMIT = 600  # seconds for all cells of one notebook on a busy machine
FOLDER = project_root() / "notebooks"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The server on copies of the notebooks, for JupyterLab saves what it runs."""
    folder = tmp_path_factory.mktemp("lab")
    for path in FOLDER.glob("0*.ipynb"):
        shutil.copy(path, folder)
    makefile = (project_root() / "Makefile").read_text()
    assert "$(BIN)/jupyter lab notebooks" in makefile  # what this test stands for
    log = folder / "server.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter", "lab", str(folder), "--no-browser", "--port=0"),
                *(["--allow-root"] if os.geteuid() == 0 else []),
            ],
            stdout=output,
            stderr=output,
            # Results go to a temporary folder (see runtime.results_dir), one thread fits beside the browser.
            env=os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_CONFIG_DIR": str(folder / "config")},
        )
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"(http://127\.0\.0\.1:\d+)/lab\S*\?token=(\w+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield SimpleNamespace(folder=folder, url=found[1], token=found[2])
    finally:
        server.terminate()
        server.wait(30)


def state(lab: SimpleNamespace, name: str) -> str:
    """What the kernel of a notebook does: "busy", "idle", or "" before it has started."""
    with urllib.request.urlopen(f"{lab.url}/api/sessions?token={lab.token}") as answer:
        sessions = json.load(answer)
    return next((s["kernel"]["execution_state"] for s in sessions if s["path"].endswith(name)), "")


def wait_for(what, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not what():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.5)


def click(browser, selector: str, text: str) -> None:
    """Click the element that shows a text, once it is there."""

    def find(_):
        shown = browser.find_elements(By.CSS_SELECTOR, selector)
        return next((element for element in shown if element.text.strip() == text), None)

    WebDriverWait(browser, 30).until(find).click()


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", ["01_pneumonia_cnn.ipynb", "04_drive_unet.ipynb"])
def test_all_cells_run_and_show_their_figures(lab, browser, screen, photograph, name):
    screen(1300, 1000)
    browser.get(f"{lab.url}/lab/workspaces/{name[:2]}/tree/{name}?token={lab.token}")
    wait_for(lambda: state(lab, name) == "idle", 60)
    path = lab.folder / name

    def is_idle() -> bool:
        time.sleep(0.3)
        return state(lab, name) == "idle"

    click(browser, ".lm-MenuBar-itemLabel", "Run")
    click(browser, ".lm-Menu-itemLabel", "Run All Cells")
    wait_for(lambda: state(lab, name) == "busy", 30)
    before = path.stat().st_mtime_ns
    wait_for(lambda: all(is_idle() for _ in range(5)), LIMIT)  # once alone, it is between two cells

    click(browser, ".lm-MenuBar-itemLabel", "File")
    click(browser, ".lm-Menu-itemLabel", "Save Notebook")
    wait_for(lambda: path.stat().st_mtime_ns != before, 30)
    time.sleep(1)
    cells = code_cells(path)
    errors = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert errors == []
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    pictures = [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]
    recorded = [
        o for cell in code_cells(FOLDER / name) for o in cell["outputs"] if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == len(recorded) > 5
    figures = "[...document.querySelectorAll('.jp-RenderedImage img')].filter((i) => i.naturalWidth > 99)"
    wait_for(lambda: browser.execute_script(f"return {figures}.length") > 0, 30)
    browser.execute_script(f"{figures}.at(-1).scrollIntoView()")
    time.sleep(1)
    photograph(f"lab_{name[:2]}")
