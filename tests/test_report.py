"""The summary and the page, from run folders written here as batches and notebooks write them."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.report import INLINE_BYTES, duration, number, read_result, scale, write


def write_run(folder: Path, source: str = "real", metrics: dict | None = None, **batch: object) -> Path:
    """The folder of a finished run; `batch` changes what the batch recorded on it."""
    (folder / "figures").mkdir(parents=True)
    record = {
        "run": folder.name, "notebook": "04_drive_unet.ipynb", "about": "Vessels & <more>",
        "headline": "test_dice", "reported": 0.52, "published": 0.829, "profile": "cpu",
        "parameters": {"source": source, "epochs": 40}, "status": "done", "seconds": 377.2, "error": "",
        "detail": [],
    }  # fmt: skip
    (folder / "batch.json").write_text(json.dumps(record | batch))
    if metrics is not None:
        claims = {"<script>alert(1)</script>": True, "Thin vessels are easy": False}
        (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "claims": claims}))
        run = {"parameters": {"source": source, "epochs": 41, "loss": "a<b"}, "hardware": "cpu (x86_64)"}
        (folder / "run.json").write_text(json.dumps(run))
    return folder


DICE = {"test_dice": 0.822, "test_dice_low": 0.81, "test_dice_high": 0.834, "test_hd95": None, "steps": 5232}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four runs: real, sample, failed, and one that was stopped before its end."""
    drive = write_run(tmp_path / "drive_unet", metrics=DICE)
    Image.new("RGB", (60, 60), "white").save(drive / "figures" / "02_small.png")
    noise = np.random.default_rng(0).integers(0, 255, (500, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(drive / "figures" / "01_large.png")
    (drive / "figures" / "alt.json").write_text(json.dumps({"01_large.png": 'Noise, "wide" & loud'}))
    (drive / "notebook.html").write_text("<p>executed</p>")
    write_run(tmp_path / "tiny", source="sample", metrics=DICE, notebook="01_pneumonia_cnn.ipynb")
    write_run(tmp_path / "broken", status="failed", error="a <b> error", detail=["In [3]:", "    1 < 0"])
    (tmp_path / "stopped" / "figures").mkdir(parents=True)
    write(tmp_path)
    return tmp_path


def test_summary_has_a_row_a_finished_run(results):
    with open(results / "summary.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["tiny", "broken", "drive_unet"]  # in the order of the notebooks
    assert rows["drive_unet"] == {
        "run": "drive_unet", "notebook": "04_drive_unet.ipynb", "profile": "cpu", "status": "done",
        "seconds": "377.2", "headline": "test_dice", "value": "0.822", "low": "0.81", "high": "0.834",
        "reported": "0.52", "published": "0.829", "claims_held": "1", "claims_total": "2",
        "hardware": "cpu (x86_64)", "error": "",
    }  # fmt: skip
    assert (rows["broken"]["status"], rows["broken"]["value"]) == ("failed", "")


def test_the_page_is_self_contained(results):
    page = (results / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#|drive_unet/|tiny/|broken/)', page)
    assert "url(" not in page
    assert "@import" not in page
    assert '<a href="drive_unet/notebook.html">' in page
    assert 'href="broken/notebook.html"' not in page  # there is none


def test_large_figures_are_scaled_down_and_described(results):
    page = (results / "index.html").read_text()
    pattern = r'<a href="(\S+)"><img src="data:image/(\w+);base64,([^"]+)" alt="(.*?)"'
    large, small = re.findall(pattern, page)
    size = (results / "drive_unet/figures/01_large.png").stat().st_size
    assert size > INLINE_BYTES
    assert len(large[2]) < size / 2
    assert (*large[:2], large[3]) == (
        "drive_unet/figures/01_large.png", "webp", "Noise, &#34;wide&#34; &amp; loud",
    )  # fmt: skip
    assert (small[1], small[3]) == ("png", "02_small")


def test_the_card_shows_the_data_and_the_last_figures(tmp_path):
    folder = write_run(tmp_path / "many")
    for number_of_figure in range(9):
        Image.new("L", (4, 4)).save(folder / "figures" / f"0{number_of_figure}.png")
    shown = [figure["alt"] for figure in read_result(folder).figures()]
    assert shown == ["00", "07", "08"]


def test_runs_yaml_chooses_the_figures(tmp_path):
    folder = write_run(tmp_path / "chosen", figures=["worst", "gone", "losses"])
    for name in ("01_pictures", "02_losses", "03_worst", "04_end"):
        Image.new("L", (4, 4)).save(folder / "figures" / f"{name}.png")
    assert [figure["alt"] for figure in read_result(folder).figures()] == ["03_worst", "02_losses"]


def test_runs_that_did_not_finish_are_named(tmp_path):
    write_run(tmp_path / "done")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "started.json").write_text("{}")
    assert "Started and not finished: killed." in write(tmp_path).read_text()


def test_texts_are_escaped(results):
    page = (results / "index.html").read_text()
    assert "<script" not in page
    for text in (
        "Vessels &amp; &lt;more&gt;",
        "a &lt;b&gt; error",
        "1 &lt; 0",
        "a&lt;b",
        "&lt;script&gt;alert(1)",
    ):
        assert text in page


def test_the_page_says_in_words_what_happened(results):
    page = (results / "index.html").read_text()
    for text in (
        "2 of 3 runs done",
        "✗ failed",
        "does not hold",
        "6 min 17 s",
        ".822",
        "(.810 to .834)",
        "5,232",
    ):
        assert text in page
    assert page.count("sample data (synthetic)") == 2  # in the table and on the card


def test_sample_runs_are_not_measured_against_real_results(results):
    assert scale(read_result(results / "tiny")) is None
    marks = scale(read_result(results / "drive_unet"))
    assert 0 < marks["reported"] < marks["low"] < marks["value"] < marks["published"] < marks["high"] < 100


def test_a_folder_of_ones_own_is_not_measured_against_published_results(tmp_path):
    folder = write_run(tmp_path / "drive_unet", metrics=DICE, profile="sample")
    run = json.loads((folder / "run.json").read_text())
    for name, comparable in (("drive", True), ("my eyes", False)):
        (folder / "run.json").write_text(json.dumps(run | {"dataset": {"name": name}}))
        result = read_result(folder)
        assert (scale(result) is not None) == comparable
        assert result.data == f"real data: {name}"


def test_one_broken_file_does_not_cost_the_report(results):
    (results / "drive_unet" / "metrics.json").write_text("{")
    (results / "tiny" / "batch.json").write_text("[]")
    (results / "drive_unet" / "figures" / "03_torn.png").write_bytes(b"\x89PNG")
    write(results)
    with open(results / "summary.csv", newline="") as file:
        errors = {row["run"]: row["error"] for row in csv.DictReader(file)}
    assert errors == {"broken": "a <b> error", "drive_unet": "metrics.json cannot be read"}


def test_numbers_of_another_run_are_not_shown_as_the_batch_s(tmp_path):
    folder = write_run(tmp_path / "drive_unet", metrics=DICE, files={"metrics.json": 5, "run.json": 5})
    assert read_result(folder).error == "metrics.json and run.json changed after the batch; run it again"
    sizes = {name: (folder / name).stat().st_size for name in ("metrics.json", "run.json")}
    folder = write_run(tmp_path / "again", metrics=DICE, files=sizes)
    assert read_result(folder).error == ""


def test_an_empty_folder_gives_an_empty_page(tmp_path):
    assert "No run has finished yet." in write(tmp_path).read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.829, ".829"), (-0.05, "-.050"), (1.0, "1.000"), (0, "0"), (31.24, "31.2"), (5232, "5,232"),
     (12, "12"), (3e-5, "3.0e-05"), (None, "–"), (float("nan"), "nan"), ("x", "x"), (True, "True")],
)  # fmt: skip
def test_numbers_as_people_write_them(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (41.2, "41 s"), (377, "6 min 17 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
