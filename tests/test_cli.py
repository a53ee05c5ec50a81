"""The command line: quick help, wiring, and one sentence on bad input."""

import subprocess
import sys
import time

import nbformat
import pytest
from nbformat import v4

from helpers.cli import main


def python(code: str) -> str:
    """The output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_answers_quickly():
    def seconds() -> float:
        start = time.perf_counter()
        shown = subprocess.run(
            [sys.executable, "-m", "helpers.cli", "--help"], capture_output=True, text=True
        )
        assert "run" in shown.stdout
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pandas', 'papermill', 'nbformat', 'nbconvert', 'jinja2', 'yaml', 'PIL'}"
    loaded = python(
        "import sys, helpers.cli\n"
        "try:\n    helpers.cli.main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print('loaded', {heavy} & set(sys.modules))"
    )
    assert loaded.splitlines()[-1] == "loaded set()"


@pytest.mark.parametrize("module", ["batch", "cluster", "compare", "explore", "audit"])
def test_batches_never_import_torch(module):
    assert python(f"import sys, helpers.{module}\nprint('torch' in sys.modules)") == "False\n"


def test_list_shows_the_runs(books, capsys):
    assert main(["list", "--notebooks", str(books)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "notebook", "headline", "profiles", "about"]
    assert lines[1].split(maxsplit=5) == [
        "good",
        "01_good.ipynb",
        "test_dice",
        "sample",
        "cpu",
        "Works & more",
    ]
    assert lines[6].split()[:4] == ["big", "01_good.ipynb", "test_dice", "full"]


def test_list_shows_parameters_with_their_comments(books, capsys):
    assert main(["list", "good", "--notebooks", str(books)]) == 0
    out = capsys.readouterr().out
    assert "good: Works & more" in out
    assert "  sizes        [12, -1]  channels # and more" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "god"], 'there is no run "god"; did you mean "good"?'),
        (["list", "god"], 'there is no run "god"; did you mean "good"?'),
        (["run", "-p", "good.epoch=3"], 'good has no parameter "epoch"; did you mean "epochs"?'),
        (["run", "-p", "good.epochs=3.5"], "good: epochs=3.5 is not a whole number; its default is 2."),
        (["run", "-p", "good.epochs=1,1"], "has 1 twice; a sweep takes each value once."),
        (["run", "big"], "big has no sample profile; choose another: --profile full."),
    ],
)
def test_bad_input_gets_one_sentence(books, tmp_path, capsys, arguments, message):
    results = ["--results", str(tmp_path / "results")] if arguments[0] == "run" else []
    assert main([*arguments, "--notebooks", str(books), *results]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("vision-notebooks: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


ENTRY = "{notebook: 01_plain.ipynb, about: A, headline: x}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"runs: {{a: {ENTRY}}}", '01_plain.ipynb: no cells are tagged "parameters"; tag one in JupyterLab.'),
        (f"runs: {{a: {ENTRY}, a: {ENTRY}}}", '"a" stands twice in the part from line 1 on; rename one.'),
        (
            f"runs: {{a: {ENTRY[:-1]}, sample: {{sizes: &s [*s]}}}}}}",
            '"sample" of the run "a" holds a value that contains itself',
        ),
        ("runs: {}", "no run has a sample profile"),
    ],
)
def test_notebooks_that_are_no_batch_get_one_sentence_too(tmp_path, capsys, text, message):
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1 + 1")]), tmp_path / "01_plain.ipynb")
    (tmp_path / "runs.yaml").write_text(text)
    assert main(["run", "--notebooks", str(tmp_path), "--results", str(tmp_path / "results")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "arguments", [["run", "--jobs", "0"], ["run", "--timeout", "-1"], ["run", "--jobs", "two"]]
)
def test_numbers_must_be_positive(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert f"invalid positive number value: '{arguments[2]}'" in capsys.readouterr().err


def test_data_lists_the_cards(tmp_path, capsys):
    assert main(["data", "list", "--data-dir", str(tmp_path)]) == 0
    assert f"not present at {tmp_path / 'drive'}" in capsys.readouterr().out


def test_weights_are_listed(capsys):
    assert main(["weights"]) == 0
    assert "mobilenet_v2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "check", "drve"], "drve"),
        (["weights", "mobilenet"], 'did you mean "mobilenet_v2"'),
        (["predict", "{folder}", "image.png"], "{folder}"),
    ],
)
def test_other_commands_get_one_sentence_too(tmp_path, capsys, arguments, message):
    assert main([text.format(folder=tmp_path) for text in arguments]) == 2
    shown = capsys.readouterr().err
    assert message.format(folder=tmp_path) in shown
    assert shown.count("\n") == 1
