"""The report's pages, opened as files in a browser, on a desktop and on a phone."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import report

DESKTOP, PHONE = 1200, 390


def write_run(folder: Path, **batch: object) -> Path:
    (folder / "figures").mkdir(parents=True)
    record = {
        "run": folder.name.split(",")[0], "notebook": "01_pneumonia_cnn.ipynb", "about": "Pneumonia",
        "headline": "test_auc", "reported": 0.9, "published": 0.968, "profile": "cpu", "status": "done",
        "parameters": {"source": "real"}, "sweep": {}, "seconds": 377.2, "error": "", "detail": [],
    }  # fmt: skip
    (folder / "batch.json").write_text(json.dumps(record | batch))
    metrics = {"test_auc": 0.93, "test_auc_low": 0.91, "test_auc_high": 0.95, "threshold": 0.5}
    claims = {"The network beats thumbnails on patients whose thumbnail misleads": True}
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "claims": claims}))
    for number in range(3):
        Image.new("RGB", (700, 300), (90 * number, 120, 180)).save(
            folder / "figures" / f"0{number}_figure.png"
        )
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A classification on real pictures, a segmentation, a failed run and a sweep."""
    root = tmp_path_factory.mktemp("results")
    generator = np.random.default_rng(0)
    pictures = root.parent / "data" / "pets"
    rows = ["file,label,p_cat,p_dog"]
    for label, centre in (("cat", 0.35), ("dog", 0.65)):
        (pictures / label).mkdir(parents=True)
        for number in range(40):
            noise = generator.integers(0, 255, (40, 40), dtype=np.uint8)
            Image.fromarray(noise).save(pictures / label / f"{number}.png")
            score = float(np.clip(generator.normal(centre, 0.15), 0.01, 0.99))
            rows.append(f"{label}/{number}.png,{label},{1 - score:.4f},{score:.4f}")
    pets = write_run(root / "pets_cnn")
    (pets / "predictions.csv").write_text("\n".join(rows) + "\n")
    run = {"parameters": {"data_dir": str(pictures.parent)}, "dataset": {"name": "pets", "source": "real"}}
    (pets / "run.json").write_text(json.dumps(run | {"hardware": "cpu (x86_64)"}))
    film = write_run(root / "lungs_unet")
    ramp = np.tile(np.arange(0, 250, 2, dtype=np.uint8), (100, 1))  # probability grows to the right
    masks = np.zeros((1, 100, 125), np.uint8)
    masks[:, :, 50:] = 1
    np.savez(film / "predictions.npz", ids=["film"], probability=ramp[None], masks=masks, threshold=0.7)
    write_run(root / "broken", status="failed", error="ValueError: no", detail=["In [3]:", "    fail()"])
    for seed in range(3):
        folder = root / f"drive_unet,a_parameter_with_a_long_name=a_long_value,seed={seed}"
        write_run(folder, sweep={"seed": seed}, parameters={"source": "real", "seed": seed})
    report.write(root)
    return root


@pytest.fixture
def visit(browser, screen, results, photograph):
    """Opens a page at a width; it must have loaded without an error and must not scroll sideways."""

    def go(page: str, width: int):
        screen(width)
        browser.get((results / page).as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        photograph(f"{Path(page).parent.name or 'report'}_{Path(page).stem}_{width}")
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        return browser

    return go


def text(browser, name: str) -> str:
    return browser.execute_script(f"return document.getElementById('{name}').textContent")


def move(browser, name: str, value: float) -> None:
    browser.execute_script(
        "const slider = document.getElementById(arguments[0]); slider.value = arguments[1];"
        "slider.dispatchEvent(new Event('input'));",
        name,
        value,
    )


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_report_can_be_read(visit, width):
    browser = visit("index.html", width)
    assert browser.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    assert len(browser.find_elements("css selector", "article")) == 3
    assert "pets_cnn" in browser.find_element("css selector", ".overview").text
    size = "return parseFloat(getComputedStyle(document.querySelector('.overview td')).fontSize)"
    assert browser.execute_script(size) >= 14


def test_links_lead_to_the_other_pages(visit):
    browser = visit("index.html", DESKTOP)
    browser.find_element("link text", "Move the threshold").click()
    assert "move the threshold" in browser.title
    visit("index.html", DESKTOP).find_element("css selector", "a[href^=compare]").click()
    assert browser.title.endswith("sweep")


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_comparison_can_be_read(visit, width):
    browser = visit("compare_drive_unet_cpu.html", width)
    assert len(browser.find_elements("css selector", "circle")) == 3


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_sliders_move_the_consequences(visit, width, photograph):
    browser = visit("pets_cnn/explore.html", width)
    assert text(browser, "prevalence-shown") == "50.0%"
    before = float(text(browser, "sensitivity").rstrip("%"))
    move(browser, "threshold", 0.7)
    assert float(text(browser, "sensitivity").rstrip("%")) < before
    moved = int(text(browser, "moved").split(", ")[1].split()[0])
    assert moved > 0
    assert len(browser.find_elements("css selector", "#pictures img")) == min(24, moved)
    photograph(f"pets_cnn_moved_{width}")
    move(browser, "threshold", 0.4)
    ppv = float(text(browser, "ppv").rstrip("%"))
    move(browser, "prevalence", 0.05)
    assert float(text(browser, "ppv").rstrip("%")) < ppv
    cells = [int(text(browser, name)) for name in ("hits", "misses", "alarms", "rejections")]
    assert sum(cells) == pytest.approx(1000, abs=2)
    assert sum(cells[:2]) == pytest.approx(50, abs=1)


def test_the_cheapest_threshold_follows_the_costs(visit):
    browser = visit("pets_cnn/explore.html", DESKTOP)
    found = []
    for cost in (50, 0):
        move(browser, "miss", cost)
        browser.find_element("id", "cheapest").click()
        found.append(float(text(browser, "threshold-shown")))
        assert text(browser, "cost") == text(browser, "least").split()[0]
    assert found[0] < found[1]


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_threshold_of_a_segmentation_moves(visit, width):
    """Probability rises by 2 of 255 a column; the truth begins where it is 100."""
    browser = visit("lungs_unet/explore.html", width)
    browser.implicitly_wait(2)
    assert text(browser, "precision") == "100.0%"
    assert float(text(browser, "dice")) < 0.8
    browser.find_element("id", "best").click()
    assert text(browser, "dice") == "1.000"
    assert float(text(browser, "threshold-shown")) == pytest.approx(99 / 255, abs=0.005)
    colour = "getContext('2d').getImageData(arguments[0], 0, 1, 1).data[0]"
    inked = [browser.execute_script(f"return errors.{colour}", column) for column in (0, 124)]
    assert inked == [20, 217]
