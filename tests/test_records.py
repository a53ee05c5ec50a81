"""What a run leaves behind: metrics.json, history.csv, run.json, claims."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from helpers import records, runtime
from helpers.errors import UserError
from helpers.parameters import convert, read_parameters
from helpers.runs import read_runs


def save(folder, **changes) -> None:
    content = {
        "run": "tiny",
        "metrics": {"test_dice": 0.8, "test_auc": np.float64(0.9), "threshold": 1},
        "claims": {"Deep beats shallow": True},
        "parameters": {"epochs": 2, "source": "sample"},
        "history": {"unet": pd.DataFrame({"epoch": [1, 2], "train_loss": [0.1 + 0.2, 1 / 3]})},
        "dataset": {"name": "drive"},
    }
    records.save(folder, **{**content, **changes})


def read(file) -> dict:
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_records_of_a_run(tmp_path):
    save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "metrics.json", "run.json"]
    assert read(tmp_path / "metrics.json") == {
        "metrics": {"test_dice": 0.8, "test_auc": 0.9, "threshold": 1},
        "claims": {"Deep beats shallow": True},
    }
    run = read(tmp_path / "run.json")
    assert run["run"] == "tiny"
    assert run["parameters"] == {"epochs": 2, "source": "sample"}
    assert run["dataset"] == {"name": "drive"}
    assert run["versions"]["numpy"] == np.__version__
    assert set(records.VERSIONS) < set(run["versions"])
    assert run["hardware"] == runtime.hardware()
    assert run["threads"] >= 1
    assert run["seconds"] > 0


def test_history_keeps_every_digit_and_names_the_model(tmp_path):
    second = pd.DataFrame({"epoch": [1], "val_auc": [0.5]})
    save(tmp_path, history={"unet": pd.DataFrame({"epoch": [1], "train_loss": [0.1 + 0.2]}), "cnn": second})
    assert (tmp_path / "history.csv").read_bytes() == (
        b"model,epoch,train_loss,val_auc\nunet,1,0.30000000000000004,\ncnn,1,,0.5\n"
    )


def test_undefined_metrics_are_null(tmp_path):
    save(tmp_path, metrics={"test_auc": math.nan, "test_psnr": math.inf})
    assert read(tmp_path / "metrics.json")["metrics"] == {"test_auc": None, "test_psnr": None}


@pytest.mark.parametrize("value", ["0.8", None, [0.8], np.array(0.8)])
def test_a_metric_that_is_no_number_is_named_and_nothing_written(tmp_path, value):
    with pytest.raises(UserError, match=r'metric "test_dice" is .*; only numbers can be recorded'):
        save(tmp_path, metrics={"test_dice": value})
    assert os.listdir(tmp_path) == []


def test_claims_are_printed_and_plain(capsys):
    claims = records.claims({"A": np.True_, "B": 1 > 2})
    assert capsys.readouterr().out == "holds: A\ndoes not hold: B\n"
    assert claims == {"A": True, "B": False}
    assert all(type(value) is bool for value in claims.values())


def test_parameters_are_the_present_values_by_the_names_of_the_cell():
    cell = read_parameters(runtime.project_root() / "notebooks" / "04_drive_unet.ipynb")
    namespace = {name: parameter.default for name, parameter in cell.items()} | {"epochs": 7, "other": 1}
    values = records.parameters("04_drive_unet.ipynb", namespace)
    assert values["epochs"] == 7
    assert "other" not in values
    assert list(values) == list(cell)


def test_a_notebook_in_the_current_folder_is_read_there(tmp_path, monkeypatch):
    copy = (runtime.project_root() / "notebooks" / "04_drive_unet.ipynb").read_text(encoding="utf-8")
    (tmp_path / "mine.ipynb").write_text(copy, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace = {name: one.default for name, one in read_parameters(tmp_path / "mine.ipynb").items()}
    assert records.parameters("mine.ipynb", namespace)["epochs"] == namespace["epochs"]


@pytest.mark.parametrize(("name", "value", "least"), [("epochs", 0, 1), ("seed", -1, 0), ("workers", -2, 0)])
def test_numbers_that_no_training_can_use_are_refused(name, value, least):
    cell = read_parameters(runtime.project_root() / "notebooks" / "04_drive_unet.ipynb")
    namespace = {key: parameter.default for key, parameter in cell.items()} | {name: value}
    with pytest.raises(UserError, match=f"^{name} is {value}; the least is {least}"):
        records.parameters("04_drive_unet.ipynb", namespace)


def test_tables_are_written_as_csv(tmp_path):
    records.save_table(tmp_path, "table", pd.DataFrame({"a": [1.5], "b": ["x, y"]}))
    assert (tmp_path / "table.csv").read_bytes() == b'a,b\n1.5,"x, y"\n'


KEPT = sorted((runtime.project_root() / "notebooks" / "records").glob("*/*/run.json"))


@pytest.mark.parametrize("file", KEPT, ids=lambda file: f"{file.parts[-3]}-{file.parts[-2]}")
def test_a_kept_record_is_of_its_profile_as_it_stands(file):
    profile, name = file.parts[-3:-1]
    run = read_runs(runtime.project_root() / "notebooks")[name]
    record = json.loads(file.read_text())
    known = read_parameters(run.notebook)
    wanted = {key: convert(name, known[key], value) for key, value in run.profiles[profile].items()}
    differing = {key for key, value in wanted.items() if record["parameters"][key] != value}
    assert not differing, "the profile has changed since: measure again, or remove the record"
    assert json.loads((file.parent / "metrics.json").read_text())["metrics"]
