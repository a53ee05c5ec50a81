"""A trained model as a file that predicts without its notebook, and the command that uses it.

A notebook defines its network in a cell, so a checkpoint alone cannot be loaded elsewhere. The
exported program (torch.export) holds the network itself; predictor.json beside it tells how images
are read and what the outputs mean.
"""

import csv
import io
import json
import logging
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_fill_holes, label
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import loaders, models, plots, segmentation
from helpers.errors import UserError
from helpers.files import atomic_open, is_whole_archive


@dataclass
class Settings:
    """What predictor.json says. task: "classification" or "segmentation".

    size: (height, width) that images are resized to; None keeps their own. multiple: sides are
    padded to a multiple of it. threshold: for the second of two classes, or for a pixel.
    field_of_view: in segmentation, whether the network was trained inside a lit disc, as fundus
    photographs have one; without it the whole frame counts.
    """

    task: str
    mode: str
    threshold: float
    classes: list[str] = field(default_factory=list)
    size: list[int] | None = None
    multiple: int = 1
    note: str = ""
    field_of_view: bool = True  # what older files, which do not say it, were read with


def save(results_dir: Path, model: nn.Module, example: Tensor, settings: Settings) -> None:
    """Export a model's network (eval mode, fp32, for the CPU) to `predictor/` in a results folder.

    example: a batch of preprocessed inputs, (N, C, H, W), N at least 2; the batch size stays free, and
    in segmentation also height and width (multiples of `settings.multiple`).
    """
    shape = {0: torch.export.Dim.AUTO}
    if settings.task == "segmentation":
        shape |= {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    # A program keeps the device it was made on; the reader of this file may have no GPU.
    network = models.fold_batch_norm(deepcopy(model).cpu().eval(), example.cpu())
    program = torch.export.export(network, (example.cpu(),), dynamic_shapes=(shape,))
    buffer = io.BytesIO()  # straight to a full disk, torch's writer would hide the reason in its own error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of tensors that share memory, which is harmless here
        torch.export.save(program, buffer)
    with atomic_open(results_dir / "predictor" / "model.pt2", "wb") as handle:
        handle.write(buffer.getbuffer())
    with atomic_open(results_dir / "predictor" / "predictor.json") as handle:
        json.dump(asdict(settings), handle, indent=2, ensure_ascii=False)


def load(results_dir: Path) -> tuple[nn.Module, Settings]:
    """The network and settings of a finished run. UserError where the folder holds none or it is damaged."""
    folder = Path(results_dir) / "predictor"
    for name in ("predictor.json", "model.pt2"):
        if not (folder / name).is_file():
            raise UserError(
                f"{results_dir}: holds no predictor/{name}; give the folder of a finished run of notebook 01 "
                "to 04, for instance results/drive_unet."
            )
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # its stack would bury the one sentence
    try:
        if not is_whole_archive(folder / "model.pt2"):
            raise ValueError("checksum")
        settings = Settings(**json.loads((folder / "predictor.json").read_text(encoding="utf-8")))
        return torch.export.load(folder / "model.pt2").module(), settings
    except Exception as error:  # a damaged archive fails in many ways, all with the same mend
        raise UserError(f"{folder}: the saved predictor is damaged; run the notebook again.") from error


def main(results_dir: str, images: list[str], out: str = "") -> int:
    """`vision-notebooks predict`: write predictions and overlays for image files; returns the exit status.

    Everything goes to `out`, or to `<results_dir>/predicted`. Classification: predictions.csv, and
    each image with a map of what its prediction rests on. Segmentation: probability, mask, overlay.
    """
    model, settings = load(Path(results_dir))
    if settings.note:
        print(f"note: this model was trained on {settings.note}")
    folder = Path(out) if out else Path(results_dir) / "predicted"
    stems = [Path(path).stem for path in images]
    for path in images:  # all are checked before the first is written
        if not Path(path).is_file():
            raise UserError(f"{path}: no such image; check the path.")
        if Path(path).resolve().parent == folder.resolve():  # where its own mask may lie under that name
            raise UserError(f"{path}: lies in {folder}, where predictions go; choose another --out.")
        if stems.count(Path(path).stem) > 1:
            raise UserError(
                f"{path}: another image has the same name; predict them into different folders (--out)."
            )
        loaders.decode([path], None, settings.mode, cache=False)
    work = classify if settings.task == "classification" else segment
    rows = [{"image": path, **work(model, settings, path, folder)} for path in images]
    with atomic_open(folder / "predictions.csv") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} image(s): {folder / 'predictions.csv'} and overlays beside it")
    return 0


@torch.inference_mode()
def classify(model: nn.Module, settings: Settings, path: str, folder: Path) -> dict:
    """Class and probabilities of one image; writes an occlusion overlay."""
    image = loaders.decode([path], tuple(settings.size), settings.mode, cache=False).float() / 255
    probabilities = model(image).softmax(1)[0]
    if len(settings.classes) == 2:
        chosen = int(probabilities[1] >= settings.threshold)
    else:
        chosen = int(probabilities.argmax())
    _save_image(folder / f"{Path(path).stem}_overlay.png", _heat(image[0], occlusion(model, image, chosen)))
    return {"class": settings.classes[chosen],
            **{f"p_{name}": f"{p:.4f}" for name, p in zip(settings.classes, probabilities.tolist())},
            }  # fmt: skip


def occlusion(model: nn.Module, image: Tensor, chosen: int, cells: int = 8) -> Tensor:
    """How much the chosen class loses when a square is covered (Zeiler and Fergus, 2014): (cells, cells).

    image: (1, C, H, W). A square is replaced by the image's mean grey. It needs nothing from inside
    the network, so it works for any model.
    """
    height, width = image.shape[2:]
    covered = []
    for row in range(cells):
        for column in range(cells):
            copy = image.clone()
            copy[..., row * height // cells : (row + 1) * height // cells,
                 column * width // cells : (column + 1) * width // cells] = image.mean()  # fmt: skip
            covered.append(copy)
    before = model(image).softmax(1)[0, chosen]
    after = model(torch.cat(covered)).softmax(1)[:, chosen]
    return (before - after).reshape(cells, cells)


@torch.inference_mode()
def segment(model: nn.Module, settings: Settings, path: str, folder: Path) -> dict:
    """Share of vessel pixels inside the field of view of one image; writes probability, mask, overlay."""
    image = loaders.decode([path], None, settings.mode, cache=False)
    inside = field_of_view(image) if settings.field_of_view else torch.ones_like(image[:, :1])
    probability = segmentation.predict_whole(
        model, loaders.standardize(image, inside), settings.multiple, flips=True
    )[0, 0] * inside[0, 0]  # fmt: skip
    mask = (probability >= settings.threshold).numpy()
    stem = folder / Path(path).stem
    _save_image(stem.with_name(f"{stem.name}_probability.png"), probability.numpy())
    _save_image(stem.with_name(f"{stem.name}_mask.png"), mask.astype(float))
    base = _colours(image[0])
    overlay = np.where(mask[..., None], 0.35 * base + 0.65 * np.array([0.34, 0.71, 0.91]), base)
    _save_image(stem.with_name(f"{stem.name}_overlay.png"), overlay)
    return {"vessel_share": f"{mask.sum() / max(int(inside.sum()), 1):.4f}"}


def field_of_view(images: Tensor) -> Tensor:
    """The lit disc of fundus photographs: uint8 (N, C, H, W) → (N, 1, H, W), 0 or 1.

    The largest connected part brighter than a tenth of the image's brightest percentile, holes filled.
    """
    masks = []
    for image in images:
        brightest = image.amax(0).numpy()
        parts, count = label(brightest > 0.1 * np.percentile(brightest, 99))
        largest = parts == (np.bincount(parts.flat)[1:].argmax() + 1) if count else np.ones_like(parts, bool)
        masks.append(torch.from_numpy(binary_fill_holes(largest)))
    return torch.stack(masks)[:, None].to(torch.uint8)


def _heat(image: Tensor, heat: Tensor) -> np.ndarray:
    """An image (C, H, W) with a coarse heat map over it, orange where the prediction rests."""
    heat = F.interpolate(heat.clamp_min(0)[None, None], image.shape[1:], mode="bilinear")[0, 0]
    heat = (heat / heat.max().clamp_min(0.05))[..., None].numpy() * 0.6  # under .05 nothing really mattered
    base = _colours(image)
    return base * (1 - heat) + heat * np.array([0.90, 0.62, 0.0])


def _colours(image: Tensor) -> np.ndarray:
    """An image (C, H, W), uint8 or floats in [0, 1], as (H, W, 3) floats in [0, 1]."""
    base = plots.picture(image)
    base = base / 255 if base.dtype == np.uint8 else base
    return np.repeat(base[..., None], 3, axis=-1) if base.ndim == 2 else base


def _save_image(path: Path, values: np.ndarray) -> None:
    """Write values in [0, 1], (H, W) or (H, W, 3), as an 8-bit PNG."""
    with atomic_open(path, "wb") as handle:
        Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8)).save(handle, format="png")
