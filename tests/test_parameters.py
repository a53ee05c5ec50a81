"""Reading a parameters cell, checking values, and planning a batch from runs.yaml."""

import json
from pathlib import Path

import pytest
from tiny import PARAMETERS, write_notebook

from helpers.errors import UserError
from helpers.parameters import Parameter, convert, read_parameters, split
from helpers.runs import PROFILES, plan, read_runs
from helpers.runtime import project_root


def test_reads_literals_and_comments(tmp_path):
    cell = (
        "flag = True  # on or off\n"
        "epochs = 5\n"
        "shift = -1.5e-3   # pixels; # in a comment\n"
        "name = 'a # b'  # text\n"
        "widths = [\n    12,\n    -16,\n]  # channels\n"
    )
    found = read_parameters(write_notebook(tmp_path / "a.ipynb", parameters=cell))
    assert {name: parameter.default for name, parameter in found.items()} == {
        "flag": True, "epochs": 5, "shift": -1.5e-3, "name": "a # b", "widths": [12, -16],
    }  # fmt: skip
    assert [parameter.help for parameter in found.values()] == [
        "on or off", "", "pixels; # in a comment", "text", "channels",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("import os", "import os"),
        ("epochs = 2 * 5", "epochs = 2 * 5"),
        ("a = b = 1", "a = b = 1"),
        ("groups = None", "groups = None"),
        ("size = {'a': 1}", "not a name and a literal"),
        ("epochs =", "not Python"),
    ],
)
def test_refuses_what_is_no_literal(tmp_path, cell, part):
    with pytest.raises(UserError, match=r"a\.ipynb") as caught:
        read_parameters(write_notebook(tmp_path / "a.ipynb", parameters=cell))
    assert part in str(caught.value)


def test_refuses_what_is_no_notebook(tmp_path):
    path = tmp_path / "a.ipynb"
    with pytest.raises(UserError, match="cannot be read"):
        read_parameters(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="is not a notebook"):
        read_parameters(path)
    path.write_text(json.dumps({"cells": []}))
    with pytest.raises(UserError, match='no cells are tagged "parameters"'):
        read_parameters(path)


@pytest.mark.parametrize(
    ("default", "value", "expected"),
    [
        (True, "false", False),
        (True, "True", True),
        (5, "-7", -7),
        (0.5, "1e-3", 1e-3),
        (0.5, "2", 2.0),
        (0.5, 2, 2.0),
        ("bce", "1,2 and = more", "1,2 and = more"),
        ([1], '["a", 2]', ["a", 2]),
        ([1], "['a']", ["a"]),
        ([0.5], ["1e-3", 1], [1e-3, 1.0]),
    ],
)
def test_converts_to_the_literals_type(default, value, expected):
    converted = convert("run", Parameter("x", default, ""), value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("default", "value", "kind"),
    [
        (True, "yes", "true or false"),
        (True, 1, "true or false"),
        (5, "5.0", "a whole number"),
        (5, True, "a whole number"),
        (0.5, "fast", "a number"),
        ("bce", False, "text"),
        ([1], "1", "a list"),
        ([1], "[a]", "a list"),
        ([0.5], "[[1]]", "a list"),
    ],
)
def test_names_run_parameter_value_and_type(default, value, kind):
    with pytest.raises(UserError, match=f"drive_unet: .*is not {kind}") as caught:
        convert("drive_unet", Parameter("width", default, ""), value)
    assert f"width={value}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0", ["0"]),
        ("0, 1,2", ["0", "1", "2"]),
        ("[0, 1],[2]", ["[0, 1]", "[2]"]),
        ("'a,b',c", ["a,b", "c"]),
        ("it's, so", ["it's", " so"]),
        ("0,,1", ["0", "", "1"]),
        ("", [""]),
    ],
)
def test_commas_separate_values(text, values):
    assert split(text) == values


def test_plan_settles_every_value(books, tmp_path):
    jobs, left_out = plan(read_runs(books), [], "sample", ["epochs=7", "good.rate=2"], tmp_path)
    assert [job.name for job in jobs] == ["good", "bad", "user", "wait", "dies"]
    assert left_out == ["big"]
    good = jobs[0]
    assert {name: good.parameters[name] for name in good.changed} == {
        "sizes": [1, 2], "epochs": 7, "rate": 2.0, "results_dir": str(tmp_path / "good"),
    }  # fmt: skip
    assert good.parameters["source"] == "sample"  # the notebook's own


def test_sweeps_expand_to_their_product(books, tmp_path):
    """The order of the options is the order in the names; only what varies is named."""
    given = ["rate=2", "good.epochs=-1,1", "sizes=[1],[2, 3]"]
    jobs, _ = plan(read_runs(books), ["good"], "sample", given, tmp_path)
    assert [job.name for job in jobs] == [
        "good,sizes=1,epochs=-1", "good,sizes=1,epochs=1",
        "good,sizes=2_3,epochs=-1", "good,sizes=2_3,epochs=1",
    ]  # fmt: skip
    last = jobs[-1]
    assert last.sweep == {"sizes": [2, 3], "epochs": 1}
    assert last.parameters["rate"] == 2.0
    assert last.parameters["results_dir"] == str(last.folder) == str(tmp_path / last.name)


def test_texts_that_cannot_name_a_folder_still_give_a_folder_each(books, tmp_path):
    texts = ["/a b", "/a_b", "..", "x" * 50, "x" * 51, "plain"]
    jobs, _ = plan(read_runs(books), ["good"], "sample", [f"good.source={','.join(texts)}"], tmp_path)
    assert len({job.folder for job in jobs}) == len(texts)
    assert all(job.folder.parent == tmp_path and len(job.name) < 70 for job in jobs)
    assert jobs[-1].name == "good,source=plain"


def test_plan_reads_numbers_that_yaml_takes_for_text(books, tmp_path):
    jobs, left_out = plan(read_runs(books), [], "cpu", [], tmp_path)
    assert [job.parameters["rate"] for job in jobs] == [1e-4]
    assert left_out == ["bad", "user", "wait", "dies", "big"]


@pytest.mark.parametrize("name", ["data_dir", "external_dir", "gan_results"])
def test_a_relative_folder_is_meant_from_the_current_one(tmp_path, monkeypatch, name):
    cell = PARAMETERS + 'external_dir = ""  # a folder\ngan_results = ""  # another\n'
    write_notebook(tmp_path / "a.ipynb", parameters=cell)
    (tmp_path / "runs.yaml").write_text("runs: {a: {notebook: a.ipynb, about: A, headline: x}}")
    monkeypatch.chdir(tmp_path)
    jobs, _ = plan(read_runs(tmp_path), ["a"], "sample", [f"{name}=here"], tmp_path)
    assert jobs[0].parameters[name] == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("names", "profile", "assignment", "message"),
    [
        (["god"], "sample", "", 'there is no run "god"; did you mean "good"?'),
        (["big"], "sample", "", "big has no sample profile; choose another: --profile full."),
        ([], "sample", "epochs", "write it as NAME.parameter=value or parameter=value"),
        ([], "sample", ".epochs=1", "write it as"),
        ([], "sample", "god.epochs=1", 'no run "god"; did you mean "good"?'),
        (["bad"], "sample", "good.epochs=1", "good is not among the runs of this command"),
        ([], "sample", "good.epoch=1", 'good has no parameter "epoch"; did you mean "epochs"?'),
        ([], "sample", "epoch=1", 'no chosen run has a parameter "epoch"; did you mean "epochs"?'),
        ([], "sample", "epochs=many", "good: epochs=many is not a whole number; its default is 2."),
        ([], "sample", "results_dir=/x", "use --results DIR"),
        ([], "sample", "results_dir=/x,/y", "use --results DIR"),
        ([], "sample", "good.epochs=0,,1", "a value between two commas is empty"),
        ([], "sample", "good.epochs=", "good: epochs= is not a whole number"),
        ([], "sample", "good.epochs=0,1,0", "has 0 twice; a sweep takes each value once"),
        ([], "sample", "good.rate=1e-3,0.001", "has 0.001 twice"),
        ([], "sample", "good.epochs=0,x", "good: epochs=x is not a whole number"),
        ([], "sample", "resume=true,false", "no sweep over it"),
    ],
)
def test_plan_refuses(books, tmp_path, names, profile, assignment, message):
    with pytest.raises(UserError) as caught:
        plan(read_runs(books), names, profile, [assignment] if assignment else [], tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [", "is not YAML"),
        ("a: 1", 'has no "runs:"'),
        ("runs: {../up: {}}", '"../up" cannot name a run'),
        ("runs:\n  a: {}\n  b: {}\n  a: {}\n", '"a" stands twice in the part from line 2 on'),
        ("runs: {a: {notebook: a.ipynb, about: A, headline: x, figures: gap}}", "must be a list of names"),
        ("runs: {a: 1}", "needs keys and values"),
        ("runs: {a: {notebook: a.ipynb, about: A}}", 'needs "headline"'),
        ("runs: {a: {notebook: a.ipynb, about: A, headlin: x}}", 'did you mean "headline"?'),
        ("runs: {a: {notebook: a.ipynb, about: A, headline: x, reported: high}}", "must be a number"),
        ("runs: {a: {notebook: a.ipynb, about: A, headline: x, cpu: 5}}", "must be like {epochs: 5}"),
        (
            "runs: {a: {notebook: a.ipynb, about: A, headline: x, cpu: {sizes: &s [1, *s]}}}",
            "contains itself",
        ),
        ("runs: {a: {notebook: a.ipynb, about: A, headline: x, cpu: {sizes: [2026-01-01]}}}", "or a date"),
        (
            "runs: {a: {notebook: a.ipynb, about: A, headline: x, sample: {epoch: 5}}}",
            'did you mean "epochs"?',
        ),
        (
            "runs: {a: {notebook: a.ipynb, about: A, headline: x, sample: {epochs: x}}}",
            "is not a whole number",
        ),
    ],
)
def test_runs_yaml_that_is_wrong(tmp_path, text, message):
    write_notebook(tmp_path / "a.ipynb")
    (tmp_path / "runs.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        plan(read_runs(tmp_path), [], "sample", [], tmp_path)
    assert message in str(caught.value)


def test_a_folder_without_runs_yaml(tmp_path):
    with pytest.raises(UserError, match="--notebooks"):
        read_runs(tmp_path)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_projects_own_runs_fit_their_notebooks(profile):
    runs = read_runs(project_root() / "notebooks")
    jobs, left_out = plan(runs, [], profile, [], Path("/results"))
    assert len(jobs) + len(left_out) == len(runs)
