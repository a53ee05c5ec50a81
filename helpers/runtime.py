"""Where and how a notebook runs: seed, device, precision, and the folders it may use."""

import ctypes
import os
import platform
import random
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import helpers
from helpers.errors import UserError


@dataclass(frozen=True)
class Runtime:
    """What `start` settled. `device` is a torch device name, `precision` "fp32" or "bf16"."""

    seed: int
    device: str
    precision: str
    threads: int

    def autocast(self) -> AbstractContextManager:
        """A context in which matrix products and convolutions use this run's precision."""
        import torch

        return torch.autocast(
            self.device.partition(":")[0], dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )


_current: Runtime | None = None


def start(seed: int = 0, device: str = "auto", precision: str = "fp32") -> Runtime:
    """Seed every generator, ask for deterministic algorithms, choose device and precision; print them.

    device: "auto" (CUDA, then Apple's MPS, then the CPU) or a torch device name.
    precision: "fp32", "bf16", or "auto": bf16 autocast where the hardware multiplies bf16.
    Results repeat to the last bit on one machine with one number of threads, not across machines.
    Raises UserError for a device or precision that does not exist here.
    """
    import numpy as np
    import torch

    global _current
    device = _choose_device(device)
    precision = _choose_precision(precision, device)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries that use the global generator are meant)
    torch.manual_seed(seed)
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
        # A GPU run would be slowed down for nothing by what is left to the operations below.
        torch.backends.cudnn.benchmark = False
    # Some CUDA kernels (bilinear upsampling backwards) have no deterministic form: warn there, raise on CPUs.
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # guards against bugs in kernels, costs time
    torch.set_flush_denormal(True)  # numbers too small to matter cost hundreds of cycles on some CPUs
    _keep_memory()
    _calm_blas()
    _current = Runtime(seed, device, precision, torch.get_num_threads())
    print(
        f"{_hardware(device)}, {_current.threads} threads, {precision}, "
        f"seed {seed}, torch {torch.__version__}"
    )
    return _current


def _keep_memory() -> None:
    """Let freed memory stay with the process (Linux with glibc; elsewhere nothing happens).

    By default every large tensor is mapped afresh from the kernel and given back when it dies, page by
    page, thousands of pages in each training step. Kept blocks are reused at once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # The constants of malloc.h: no separate mappings; trim the heap never; grow it by 64 MiB at a time.
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):
        mallopt(option, value)


def _calm_blas() -> None:
    """Let the BLAS of NumPy and SciPy work with one thread; torch has its own, which keeps them all.

    scikit-learn calls it thousands of times with small matrices, and its threads then wait for each other
    longer than they compute: a logistic regression on kept features took ten times as long on two cores.
    """
    from threadpoolctl import ThreadpoolController

    ThreadpoolController().select(prefix="libscipy_openblas").limit(limits=1)


def current() -> Runtime:
    """The settings of this process: what `start` chose, or its defaults when it was not called."""
    import torch

    return _current or Runtime(0, "cpu", "fp32", torch.get_num_threads())


def _choose_device(device: str) -> str:
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f'device "{device}" is not available here ({reason}); use "auto" or "cpu".'
        ) from error
    return device


def _choose_precision(precision: str, device: str) -> str:
    import torch

    if precision not in ("fp32", "bf16", "auto"):
        raise UserError(f'precision "{precision}" is unknown; use "fp32", "bf16" or "auto".')
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device == "cpu":
        # Emulated bf16 is slower than fp32: only processors with bf16 products gain from it.
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return "bf16" if fast else "fp32"
    return "fp32"


def _hardware(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} ({platform.machine()})"


def hardware() -> str:
    """One line that names the device of this process, for the records of a run."""
    return _hardware(current().device)


def project_root() -> Path:
    """The folder that holds `helpers/` and `notebooks/`; relative paths are meant from here.

    Not the current folder: papermill runs in its caller's, nbval in the notebook's.
    """
    return Path(helpers.__file__).resolve().parent.parent


def resolve(path: str | Path) -> Path:
    """An absolute path: as it is, or seen from the project root where it is relative."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else project_root() / path


def data_root(data_dir: str = "") -> Path:
    """The folder of the real datasets: `data_dir`, else the variable DATA_DIR, else `data/`."""
    if data_dir:
        return resolve(data_dir)
    from_environment = os.environ.get("DATA_DIR", "")
    # A variable is set in a shell, so a relative path in it is meant from the current folder.
    return Path(from_environment).expanduser().resolve() if from_environment else project_root() / "data"


def cache_dir() -> Path:
    """Where samples and decoded images are kept: VISION_NOTEBOOKS_CACHE, else `.cache/` in the project."""
    folder = os.environ.get("VISION_NOTEBOOKS_CACHE", "")
    return Path(folder).expanduser().resolve() if folder else project_root() / ".cache"


def results_dir(folder: str, run: str) -> Path:
    """The folder a notebook writes to: `folder`, else `results/<run>`; it is created.

    Under pytest (nbval) an empty `folder` gives a temporary one, so that tests write nothing into the
    project; `notebooks/conftest.py` removes it when the tests end.
    """
    if folder:
        path = resolve(folder)
    elif "PYTEST_VERSION" in os.environ:
        path = Path(tempfile.mkdtemp(prefix=f"{run}-"))
    else:
        path = project_root() / "results" / run
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be created ({error.strerror}); give another results_dir.") from error
    return path


def quiet() -> bool:
    """Whether progress bars stay off: in batches and tests, which set VISION_NOTEBOOKS_QUIET."""
    return bool(os.environ.get("VISION_NOTEBOOKS_QUIET")) or "PYTEST_VERSION" in os.environ
