"""Figures: one look for all notebooks, colours that colour-blind readers can tell apart, alt text."""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, display
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image as Pillow
from PIL import ImageDraw
from sklearn import metrics as sk

from helpers.files import atomic_open

# From Okabe and Ito's palette: false alarms orange, misses blue, never red and green.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#8C8C8C"

_folder: Path | None = None
_note = ""
_alt: dict[str, str] = {}


def begin(results_dir: Path, note: str = "") -> None:
    """Set the look of all figures, the folder they are saved in, and a note that each must carry."""
    global _folder, _note
    _folder, _note = Path(results_dir) / "figures", note
    _alt.clear()
    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.titleweight": "bold", "axes.titlesize": 10, "image.cmap": "gray",
                         "figure.constrained_layout.use": True, "legend.frameon": False})  # fmt: skip


def show(fig: Figure, name: str, alt: str, colours: int = 0, note: str | None = None) -> None:
    """Show a figure with alt text and save it as `figures/NN_<name>.png`; the figure is closed.

    alt: what the figure shows, in a sentence, for readers who do not see it; kept in the output's
    metadata and in `figures/alt.json`.
    colours: keep only that many, up to 256: grids of grey pictures need a third of the space then.
    note: what this figure must carry instead of the note of `begin`, where its data are others; "": none.
    An axis labelled "epoch" gets ticks at whole epochs only.
    """
    for axes in fig.axes:
        if axes.get_xlabel() == "epoch" and isinstance(axes.xaxis.get_major_locator(), MaxNLocator):
            axes.xaxis.get_major_locator().set_params(integer=True)  # nothing happens at half an epoch
    note = _note if note is None else note
    if note:
        fig.supxlabel(note, fontsize=7, color=GREY, x=0.99, ha="right")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    plt.close(fig)
    if colours:
        with Pillow.open(buffer) as full:
            # Median cut would give all shades to the grey pictures and none to a line's blue.
            few = full.convert("RGB").quantize(
                colours, Pillow.Quantize.MAXCOVERAGE, dither=Pillow.Dither.NONE
            )
        buffer = io.BytesIO()
        few.save(buffer, "PNG", optimize=True)
    _save(f"{name}.png", buffer.getvalue(), alt)
    display(Image(buffer.getvalue(), alt=alt))


def _save(name: str, content: bytes, alt: str) -> None:
    """Write `figures/NN_<name>` and its alt text, once `begin` has named the folder."""
    if _folder is None:
        return
    # A cell that is run again replaces its figure.
    known = {shown.partition("_")[2]: shown for shown in _alt}
    file = _folder / known.get(name, f"{len(_alt) + 1:02d}_{name}")
    with atomic_open(file, "wb") as handle:
        handle.write(content)
    _alt[file.name] = alt
    with atomic_open(_folder / "alt.json") as handle:
        json.dump(_alt, handle, indent=2, ensure_ascii=False)


def history(frame: pd.DataFrame, metrics: Sequence[str], title: str, best: int | None = None) -> Figure:
    """Loss and chosen metrics by epoch, side by side; `best` marks an epoch.

    frame: a run's history with columns epoch and the logged names.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for axes, columns in ((left, [c for c in frame if "loss" in c]), (right, metrics)):
        for column, style in zip(columns, ("-", "--", ":", "-.") * 3):
            axes.plot(frame["epoch"], frame[column], style, marker=".", label=column.replace("_", " "))
        if best:
            axes.axvline(best, color=GREY, linewidth=1)
            axes.annotate("best", (best, 1), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
        axes.set_xlabel("epoch")
        axes.legend(fontsize=8)
    for axes, what in ((left, "loss"), (right, "metrics")):
        axes.set_title(f"{title}: {what}", pad=16 if best else None)  # above the word at the line
    left.set_ylabel("loss")
    right.set_ylabel("metric")
    return fig


def compare(histories: dict[str, pd.DataFrame], column: str, title: str, ylabel: str) -> Figure:
    """One logged number by epoch for several runs."""
    fig, axes = plt.subplots(figsize=(6, 3.4))
    for (name, frame), style in zip(histories.items(), ("-", "--", ":", "-.") * 4):
        axes.plot(frame["epoch"], frame[column], style, marker=".", label=name)
    axes.set(xlabel="epoch", ylabel=ylabel, title=title)
    axes.legend(fontsize=8)
    return fig


def batch_grid(images, titles: Sequence[str], title: str, columns: int = 6, size: float = 1.6) -> Figure:
    """Images in a grid, each with its own title.

    images: (N, C, H, W) or (N, H, W), floats in [0, 1] or uint8.
    """
    rows = -(-len(images) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + 0.3)), squeeze=False)
    for cell in axes.flat:
        cell.axis("off")
    for cell, image, text in zip(axes.flat, images, titles):
        cell.imshow(picture(image))
        cell.set_title(text, fontsize=8, fontweight="normal")
    fig.suptitle(title, fontsize=10, fontweight="bold")
    return fig


def picture(image) -> np.ndarray:
    """An image as matplotlib wants it: (H, W) or (H, W, 3), stretched to 0..1 where it leaves that range."""
    image = np.asarray(image)
    if image.ndim == 3:
        image = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    if image.dtype == np.uint8:
        return image
    image = image.astype(float)
    low, high = min(image.min(), 0), max(image.max(), 1)
    return (image - low) / (high - low)


def mosaic(images, columns: int, gap: int = 1) -> np.ndarray:
    """Many small images as one, row by row: (N, C, H, W) or (N, H, W) → uint8 (height, width[, 3]).

    images: floats in [0, 1] (clipped) or uint8. gap: white pixels between images. The last row may be
    short: it is filled up with white.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    tiles = np.stack([picture(image) for image in images])  # (N, H, W) or (N, H, W, 3)
    height, width = tiles.shape[1:3]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles.shape[3:]), 255,
                    np.uint8)  # fmt: skip
    for number, tile in enumerate(tiles):
        top, left = (at * (side + gap) for at, side in zip(divmod(number, columns), (height, width)))
        sheet[top : top + height, left : left + width] = tile
    return sheet


def strip(grids: Sequence, titles: Sequence[str], title: str, columns: int = 4, size: float = 2.0) -> Figure:
    """Several grids of small images side by side, for instance of one generator at different epochs.

    grids: a sequence of (N, C, H, W) or (N, H, W), floats in [0, 1] or uint8; columns: of each grid.
    size: width of one grid in inches.
    """
    sheets = [mosaic(images, columns) for images in grids]
    height = size * sheets[0].shape[0] / sheets[0].shape[1]
    fig, axes = plt.subplots(1, len(sheets), figsize=(size * len(sheets), height + 0.6), squeeze=False)
    for cell, sheet, text in zip(axes.flat, sheets, titles):
        cell.imshow(sheet, vmin=0, vmax=255)
        cell.set_title(text, fontsize=8, fontweight="normal")
        cell.axis("off")
    fig.suptitle(title, fontsize=10, fontweight="bold")
    return fig


def gif(frames: Sequence, name: str, alt: str, labels: Sequence[str] = (), seconds: float = 0.3,
        scale: int = 2, greys: int = 32) -> None:  # fmt: skip
    """Show an animation with alt text and save it as `figures/NN_<name>.gif`; the last frame stays longer.

    frames: pictures of one size as `mosaic` gives them, uint8 (H, W) or (H, W, 3), each enlarged `scale`
    times. labels: a text under each frame. greys: how many shades or colours are kept, at most 256:
    fewer make a smaller file, and a notebook has to stay small.
    """
    labels = labels or [""] * len(frames)
    pictures = []
    for frame, label in zip(frames, labels):
        drawn = Pillow.fromarray(np.asarray(frame))
        width, height = (scale * side for side in drawn.size)
        page = Pillow.new(drawn.mode, (width, height + 14), "white")
        page.paste(drawn.resize((width, height), Pillow.Resampling.NEAREST), (0, 0))
        text = " · ".join(part for part in (label, _note) if part)
        ImageDraw.Draw(page).text((2, height + 1), text, fill="black")
        pictures.append(page.quantize(greys, dither=Pillow.Dither.NONE))
    durations = [int(1000 * seconds)] * (len(pictures) - 1) + [int(4000 * seconds)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    _save(f"{name}.gif", buffer.getvalue(), alt)
    # As HTML: of the formats that viewers and converters of notebooks show, none but this one moves.
    content = base64.b64encode(buffer.getvalue()).decode()
    tag = f'<img src="data:image/gif;base64,{content}" alt="{html.escape(alt)}">'
    display({"text/html": tag, "text/plain": alt}, raw=True)


def confusion(labels, predicted, classes: Sequence[str], title: str) -> Figure:
    """Counts by true and predicted class, coloured by the share of the true class."""
    matrix = sk.confusion_matrix(labels, predicted, labels=range(len(classes)))
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    text = [[f"{n}\n{s:.0%}" for n, s in zip(*row)] for row in zip(matrix, share)]
    fig, axes = plt.subplots(figsize=(1.5 + 1.1 * len(classes), 1 + 0.95 * len(classes)))
    sns.heatmap(share, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, ax=axes,
                xticklabels=classes, yticklabels=classes)  # fmt: skip
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return fig


def roc_pr(curves: dict[str, tuple], title: str, threshold: float | None = None) -> Figure:
    """ROC and precision–recall curves; a dot marks `threshold` on the first.

    curves: {name: (scores, labels)}, scores (N,) of the positive class, labels (N,) 0 or 1.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6))
    for number, ((name, (scores, labels)), style) in enumerate(
        zip(curves.items(), ("-", "--", ":", "-.") * 3)
    ):
        scores, labels = np.asarray(scores), np.asarray(labels)
        false_alarms, hits, _ = sk.roc_curve(labels, scores)
        precision, recall, _ = sk.precision_recall_curve(labels, scores)
        line = left.plot(false_alarms, hits, style, label=f"{name}, AUC {sk.auc(false_alarms, hits):.3f}")[0]
        average = sk.average_precision_score(labels, scores)
        right.plot(recall, precision, style, label=f"{name}, AP {average:.3f}", color=line.get_color())
        if threshold is not None and number == 0:
            positive = scores >= threshold
            hit, alarm = positive[labels == 1].mean(), positive[labels == 0].mean()
            left.plot(alarm, hit, "o", color=line.get_color(), label=f"threshold {threshold:.2f}")
            right.plot(hit, labels[positive].mean() if positive.any() else 1, "o", color=line.get_color())
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    left.set(xlabel="false alarms (1 − specificity)", ylabel="sensitivity", title=f"{title}: ROC")
    right.set(
        xlabel="recall (sensitivity)", ylabel="precision", title=f"{title}: precision–recall", ylim=(0, 1.03)
    )
    for axes in (left, right):
        axes.legend(fontsize=8, loc="lower right" if axes is left else "best")
    return fig


def segmentation(image, probability, truth, inside, threshold: float, title: str) -> Figure:
    """Image, predicted probability, truth and errors of one image; false alarms orange, misses blue.

    image: (3, H, W) or (1, H, W); the others (H, W), probability in [0, 1], truth and inside 0 or 1.
    """
    inside = np.asarray(inside).astype(bool)
    probability, truth = np.asarray(probability) * inside, np.asarray(truth).astype(bool) & inside
    fig, axes = plt.subplots(1, 4, figsize=(11, 3.6))
    axes[0].imshow(picture(image))
    axes[1].imshow(probability, vmin=0, vmax=1)
    axes[2].imshow(truth)
    axes[3].imshow(error_map(probability >= threshold, truth))
    for cell, text in zip(axes, ("image", "predicted probability", "truth", "errors")):
        cell.set_title(text)
        cell.axis("off")
    axes[3].legend(
        handles=[Patch(color=ORANGE, label="false alarm"), Patch(color=BLUE, label="missed")],
        fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2,
    )  # fmt: skip
    fig.suptitle(title, fontsize=10, fontweight="bold")
    return fig


def error_map(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) colours: hits light grey, false alarms orange, misses blue, the rest near black."""
    colours = np.full((*truth.shape, 3), 0.08)
    colours[predicted & truth] = 0.85
    colours[predicted & ~truth] = plt.matplotlib.colors.to_rgb(ORANGE)
    colours[~predicted & truth] = plt.matplotlib.colors.to_rgb(BLUE)
    return colours
