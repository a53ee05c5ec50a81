"""Figures: saved with alt text, titled and labelled, in colours that all can tell apart."""

import json
import os

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from helpers import plots


@pytest.fixture(autouse=True)
def figures(tmp_path):
    """The folder that figures go to; figures left open are closed."""
    plots.begin(tmp_path, note="sample data (synthetic)")
    yield tmp_path / "figures"
    plt.close("all")


@pytest.fixture
def shell():
    """What shows output in a notebook."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def a_figure() -> plt.Figure:
    fig, axes = plt.subplots()
    axes.plot([1, 2])
    return fig


def test_a_figure_is_shown_and_saved_with_its_alt_text(figures, shell):
    fig = a_figure()
    with capture_output() as captured:
        plots.show(fig, "curve", alt="A rising line.")
        plots.show(a_figure(), "second", alt="Another “line”.")
    first, _ = captured.outputs
    assert first.metadata["image/png"]["alt"] == "A rising line."
    assert first.data["image/png"]
    assert captured.stdout == ""
    assert sorted(os.listdir(figures)) == ["01_curve.png", "02_second.png", "alt.json"]
    assert json.loads((figures / "alt.json").read_text(encoding="utf-8")) == {
        "01_curve.png": "A rising line.", "02_second.png": "Another “line”.",
    }  # fmt: skip
    assert Image.open(figures / "01_curve.png").format == "PNG"
    assert not plt.get_fignums()


def test_an_axis_of_epochs_has_no_ticks_between_them():
    def ticks(label: str) -> np.ndarray:
        fig, axes = plt.subplots()
        axes.plot([1, 2, 3, 4], [1, 1, 1, 1])
        axes.set_xlabel(label)
        plots.show(fig, label, alt="A flat line.")
        return axes.get_xticks()

    assert (ticks("epoch") % 1 == 0).all()
    assert (ticks("seconds") % 1 != 0).any()  # other axes keep theirs


def test_a_cell_that_runs_again_replaces_its_figure(figures):
    for alt in ("first", "second"):
        plots.show(a_figure(), "roc", alt=alt)
        plots.show(a_figure(), "val_roc", alt=alt)
    assert json.loads((figures / "alt.json").read_text()) == {
        "01_roc.png": "second",
        "02_val_roc.png": "second",
    }
    plots.begin(figures.parent)
    plots.show(a_figure(), "other", alt="")
    assert json.loads((figures / "alt.json").read_text()) == {"01_other.png": ""}


def test_figures_of_sample_data_say_so():
    fig = a_figure()
    plots.show(fig, "curve", alt="")
    assert fig.get_supxlabel() == "sample data (synthetic)"


def labelled(fig: plt.Figure) -> bool:
    return all(axes.get_title() and axes.get_xlabel() and axes.get_ylabel() for axes in fig.axes)


def history_of(epochs: int = 3) -> pd.DataFrame:
    numbers = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {"epoch": numbers, "train_loss": 1 / numbers, "val_loss": 2 / numbers, "val_auc": numbers}
    )


def test_history_shows_losses_beside_metrics_and_marks_the_best():
    fig = plots.history(history_of(), ["val_auc"], "CNN", best=2)
    assert labelled(fig)
    left, right = fig.axes
    assert [line.get_label() for line in left.lines[:2]] == ["train loss", "val loss"]
    assert right.lines[0].get_label() == "val auc"
    assert left.texts[0].get_text() == "best"
    plots.history(history_of(1), ["val_auc"], "CNN")


def test_compare_has_a_line_a_run():
    fig = plots.compare({"bce": history_of(), "dice": history_of(2)}, "val_auc", "Two losses", "AUC")
    assert labelled(fig)
    assert [line.get_label() for line in fig.axes[0].lines] == ["bce", "dice"]


def test_confusion_counts_by_class_even_where_one_is_absent():
    fig = plots.confusion([0, 0, 1, 1], [0, 1, 1, 1], ["a", "b", "c"], "CNN")
    assert labelled(fig)
    assert [text.get_text() for text in fig.axes[0].texts][:3] == ["1\n50%", "1\n50%", "0\n0%"]


def test_roc_and_pr_mark_the_threshold_where_it_is():
    scores, labels = np.array([0.1, 0.4, 0.6, 0.9]), np.array([0, 1, 0, 1])
    fig = plots.roc_pr({"CNN": (scores, labels), "other": (-scores, labels)}, "Test", threshold=0.5)
    assert labelled(fig)
    left, right = fig.axes
    (dot,) = [line for line in left.lines if line.get_marker() == "o"]
    assert (dot.get_xdata(), dot.get_ydata()) == ([0.5], [0.5])
    (dot,) = [line for line in right.lines if line.get_marker() == "o"]
    assert (dot.get_xdata(), dot.get_ydata()) == ([0.5], [0.5])
    assert "CNN, AUC 0.750" in [text.get_text() for text in left.get_legend().get_texts()]


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(5, 3, 8, 8),
        np.zeros((5, 8, 8), np.uint8),
        torch.randn(5, 1, 8, 8),
        np.ones((5, 8, 8), bool),
    ],
)
def test_a_grid_takes_all_kinds_of_images(images):
    fig = plots.batch_grid(images, "abcde", "Five", columns=3)
    assert len(fig.axes) == 6
    assert [axes.get_title() for axes in fig.axes] == ["a", "b", "c", "d", "e", ""]
    fig.savefig(os.devnull, format="png")


def test_pictures_are_stretched_only_where_they_leave_their_range():
    inside = np.array([[0.2, 0.4]])
    np.testing.assert_array_equal(plots.picture(inside), inside)
    outside = plots.picture(np.array([[-1.0, 3.0]]))
    assert (outside.min(), outside.max()) == (0, 1)
    colour = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    np.testing.assert_array_equal(plots.picture(colour)[2, 3], colour[:, 2, 3])


def test_errors_are_orange_and_blue_inside_the_field_only():
    truth = np.array([[1, 1, 0, 0, 1]])
    predicted = np.array([[1, 0, 1, 0, 0]], bool)
    colours = plots.error_map(predicted, truth.astype(bool))
    orange, blue = (matplotlib.colors.to_rgb(c) for c in (plots.ORANGE, plots.BLUE))
    np.testing.assert_allclose(colours[0, 1], blue)
    np.testing.assert_allclose(colours[0, 2], orange)
    inside = np.array([[1, 1, 1, 1, 0]])
    fig = plots.segmentation(torch.rand(3, 1, 5), predicted.astype(float), truth, inside, 0.5, "One")
    assert [axes.get_title() for axes in fig.axes] == ["image", "predicted probability", "truth", "errors"]
    errors = fig.axes[3].images[0].get_array()
    np.testing.assert_allclose(errors[0, 1], blue)
    np.testing.assert_allclose(errors[0, 4], errors[0, 3])  # outside: neither missed nor found
    assert fig.get_suptitle() == "One"


@pytest.mark.parametrize("colour", [False, True])
def test_a_mosaic_keeps_every_pixel_in_its_place(colour):
    images = torch.randint(0, 256, (5, 3 if colour else 1, 4, 6), dtype=torch.uint8)
    sheet = plots.mosaic(images, columns=3, gap=1)
    assert sheet.shape == (9, 20, 3)[: 3 if colour else 2]
    fourth = images[3].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(sheet[5:, :6], fourth if colour else fourth[..., 0])
    assert (sheet[4] == 255).all()
    assert (sheet[5:, 14:] == 255).all()  # the place of a sixth image
    floats = plots.mosaic(torch.tensor([[[0.0, 0.5, 1.2]]]), columns=1)
    assert floats.tolist() == [[0, 128, 255]]


def test_a_strip_shows_a_grid_for_each_epoch():
    grids = [torch.rand(6, 1, 8, 8) for _ in range(3)]
    fig = plots.strip(grids, ["epoch 1", "epoch 5", "epoch 9"], "Over time", columns=2)
    assert [axes.get_title() for axes in fig.axes] == ["epoch 1", "epoch 5", "epoch 9"]
    np.testing.assert_array_equal(fig.axes[1].images[0].get_array(), plots.mosaic(grids[1], 2))
    assert fig.get_suptitle() == "Over time"


def test_an_animation_moves_and_is_shown_with_its_alt_text(figures, shell):
    frames = [np.full((16, 40), value, np.uint8) for value in (0, 120, 255)]
    with capture_output() as captured:
        plots.gif(
            frames, "grid", alt='Squares that "brighten".', labels=["1", "2", "3"], seconds=0.1, scale=3
        )
    (shown,) = captured.outputs
    assert shown.data["text/html"].startswith('<img src="data:image/gif;base64,')
    assert 'alt="Squares that &quot;brighten&quot;."' in shown.data["text/html"]
    assert json.loads((figures / "alt.json").read_text()) == {"01_grid.gif": 'Squares that "brighten".'}
    with Image.open(figures / "01_grid.gif") as image:
        assert (image.n_frames, image.size) == (3, (120, 62))
        assert image.info["duration"] == 100
        middles = []
        for number in range(3):
            image.seek(number)
            middles.append(image.convert("L").getpixel((60, 20)))
    assert abs(middles[0] - 0) < 9
    assert abs(middles[1] - 120) < 9
    assert abs(middles[2] - 255) < 9
    assert image.info["duration"] == 400


def test_an_animation_in_colour_keeps_its_colours(figures):
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[..., 0] = 200
    plots.gif([frame, frame // 2], "colour", alt="Red.", greys=64)
    with Image.open(figures / "01_colour.gif") as image:
        red, green, blue = image.convert("RGB").getpixel((4, 4))
    assert abs(red - 200) < 12
    assert green < 12
    assert blue < 12


def test_few_colours_make_a_small_file_that_looks_the_same(figures):
    noise = np.random.default_rng(0).random((20, 32, 32))
    for name, colours in (("full", 0), ("few", 64)):
        fig = plots.batch_grid(noise, [""] * 20, "Noise")
        fig.axes[0].plot(16, 16, "o", color=plots.ORANGE)
        plots.show(fig, name, alt="Noise.", colours=colours)
    full, few = figures / "01_full.png", figures / "02_few.png"
    assert few.stat().st_size < 0.6 * full.stat().st_size
    one, other = (np.asarray(Image.open(file).convert("RGB"), float) for file in (full, few))
    assert np.abs(one - other).mean() < 4
    spot = np.abs(one - 255 * np.array(matplotlib.colors.to_rgb(plots.ORANGE))).sum(2) < 3
    assert spot.any()
    assert np.abs(one - other)[spot].mean() < 12  # the one coloured dot keeps its colour
