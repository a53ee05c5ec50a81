"""Sweeps: settings, paired differences, and the page with the chart, from run folders written here."""

import json
import statistics
from pathlib import Path

import pytest

from helpers import compare, report
from helpers.cli import main
from helpers.errors import UserError

DICE = {("bce", 0): 0.80, ("bce", 1): 0.82, ("bce", 2): 0.81, ("dice", 0): 0.83, ("dice", 1): 0.84}


def write_run(folder: Path, sweep: dict, dice: float | None, **batch: object) -> None:
    folder.mkdir(parents=True)
    record = {
        "run": "drive_unet", "notebook": "04_drive_unet.ipynb", "about": "Vessels", "headline": "test_dice",
        "reported": None, "published": None, "profile": "sample", "parameters": {"epochs": 2, **sweep},
        "sweep": sweep, "status": "done", "seconds": 9, "error": "", "detail": [],
        "fingerprint": {"notebook": "n", "helpers": "h", "packages": "p"},
    }  # fmt: skip
    (folder / "batch.json").write_text(json.dumps(record | batch))
    metrics = {"test_dice": dice, "test_auc": 0.9}
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "claims": {}}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two losses with three and two seeds, a failed run, and one outside of the sweep."""
    for (loss, seed), dice in DICE.items():
        write_run(tmp_path / f"drive_unet,loss={loss},seed={seed}", {"loss": loss, "seed": seed}, dice)
    write_run(tmp_path / "failed", {"loss": "dice", "seed": 2}, 0.1, status="failed")
    write_run(tmp_path / "drive_unet", {}, 0.5)
    return tmp_path


def found(results: Path, *arguments: str) -> list[compare.Comparison]:
    return compare.comparisons(report.read_all(results), *arguments)


def test_settings_have_mean_and_spread_over_seeds(results):
    (sweep,) = found(results)
    assert [setting.name for setting in sweep.settings] == ["loss=bce", "loss=dice"]
    first, second = sweep.settings
    assert first.by_repeat == {"0": 0.80, "1": 0.82, "2": 0.81}
    assert (first.mean, first.deviation) == pytest.approx((0.81, statistics.stdev([0.80, 0.82, 0.81])))
    assert len(second.by_repeat) == 2  # the failed run does not count
    assert sweep.mixed == []


def test_differences_are_paired_over_shared_seeds(results):
    (sweep,) = found(results)
    assert sweep.difference(sweep.settings[0]) is None
    gap = sweep.difference(sweep.settings[1])
    assert (gap.pairs, gap.mean) == (2, pytest.approx((0.03 + 0.02) / 2))  # seed 2 has no partner


def test_the_interval_is_students():
    """Four differences: t(.975, 3) = 3.1824."""
    gap = compare.paired([1.0, 2.0, 3.0, 4.0])
    reach = 3.18245 * statistics.stdev([1, 2, 3, 4]) / 2
    assert (gap.low, gap.high) == pytest.approx((2.5 - reach, 2.5 + reach), rel=1e-4)
    assert compare.paired([1.0]).low is None


def test_what_else_differs_is_said(results):
    batch = json.loads((results / "drive_unet,loss=bce,seed=0" / "batch.json").read_text())
    batch["fingerprint"]["helpers"] = "older"
    (results / "drive_unet,loss=bce,seed=0" / "batch.json").write_text(json.dumps(batch))
    assert found(results)[0].mixed == ["helpers"]


def test_other_metrics_and_other_repeats(results):
    assert found(results, "test_auc")[0].settings[0].mean == pytest.approx(0.9)
    by_seed = found(results, "", "loss")[0]
    assert [setting.name for setting in by_seed.settings] == ["seed=0", "seed=1", "seed=2"]
    assert found(results, "no_such_metric") == []


def test_a_sweep_over_data_is_a_setting_each(tmp_path):
    for folder, dice in (("/a", 0.7), ("/b", 0.9)):
        write_run(tmp_path / folder[1:], {"data_dir": folder}, dice)
    (sweep,) = found(tmp_path)
    assert [(setting.name, setting.mean) for setting in sweep.settings] == [
        ("data_dir=/a", 0.7), ("data_dir=/b", 0.9),
    ]  # fmt: skip


def test_the_command_prints_a_table_and_writes_a_page(results, capsys):
    assert main(["compare", "--results", str(results)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:4] == ["setting", "runs", "mean", "sd"]
    assert out[2].split() == ["loss=bce", "3", "0.8100", "0.0100"]
    assert out[3].split()[:5] == ["loss=dice", "2", "0.8350", "0.0071", "+0.0250"]
    assert out[-1] == str(results / "compare_drive_unet_sample.html")
    page = Path(out[-1]).read_text()
    assert page.count("<circle") == 5
    assert page.count("<polyline") == 2  # the seeds that both losses have
    assert "<b>.810</b>" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["god"], "god: no finished sweep; make one"), (["--metric", "x"], "no finished sweep with a metric x")],
)
def test_without_a_sweep_it_says_how_to_make_one(results, capsys, arguments, message):
    assert main(["compare", *arguments, "--results", str(results)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--over", "sede"], 'drive_unet: no parameter "sede" to take as repeats; did you mean "seed"?'),
        (["drive_unt"], 'of others did you mean "drive_unet"?'),
    ],
)
def test_wrong_names_get_the_nearest_spelling(results, capsys, arguments, message):
    assert main(["compare", *arguments, "--results", str(results)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("varied", "mixed"), [("loss", ["data"]), ("dataset", [])])
def test_runs_on_other_data_are_marked_unless_a_parameter_names_the_data(tmp_path, varied, mixed):
    for data in "ab":
        prints = {"notebook": "n", "helpers": "h", "packages": "p", "data": data}
        for seed in (0, 1):
            sweep = {varied: data, "seed": seed}
            write_run(tmp_path / f"{data}{seed}", sweep, 0.8, fingerprint=prints)
    (comparison,) = found(tmp_path)
    assert comparison.mixed == mixed


def test_a_missing_folder_gets_one_sentence(tmp_path, capsys):
    assert main(["compare", "--results", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"-p drive_unet\.seed=0,1,2"):
        compare.named([], [], "")


def test_the_report_links_the_sweep_and_shows_its_runs_there(results):
    page = report.write(results).read_text()
    assert '<a href="compare_drive_unet_sample.html">drive_unet</a>: 5 runs, 2' in " ".join(page.split())
    assert (results / "compare_drive_unet_sample.html").exists()
    assert page.count("<article") == 2  # the run outside of the sweep, and the failed one


@pytest.mark.parametrize(
    "values", [[0.8, 0.8], [0.8], [-3.0, 120.0], [0.81234, 0.81235], [70 / 120, 90 / 120]]
)
def test_the_chart_has_round_ticks_inside_the_picture(results, values):
    setting = compare.Setting({}, {str(seed): value for seed, value in enumerate(values)})
    drawn = report.chart(compare.Comparison("r", "cpu", "m", "seed", [setting], [], []))
    assert len(drawn["ticks"]) >= 2
    assert all(0 <= y <= 200 for y, _ in drawn["ticks"])
    assert len({text for _, text in drawn["ticks"]}) == len(drawn["ticks"])


def test_letters_go_on_after_z():
    assert [report.letter(place) for place in (0, 25, 26, 52)] == ["A", "Z", "AA", "BA"]
