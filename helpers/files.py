"""Writing files so that nothing half-written is ever left behind."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from helpers.errors import UserError


@contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of `path` for writing and rename it to `path` on success.

    Readers see the old file or the whole new one. On any failure the neighbour is removed; a full
    disk or a folder that cannot be written ends with a `UserError` that names the file.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        # newline="": a "\n" stays one byte on Windows too, so equal runs give equal files.
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a rename must not overtake the data it publishes
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(
            f"{path}: could not be written ({error.strerror or error}); "
            "free some space or choose another folder, then run again."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def is_whole_archive(path: Path | str) -> bool:
    """Whether every member of a zip archive matches its checksum; torch's own loaders do not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # what is no archive any more fails in many ways
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
