"""Writing files so that nothing half-written is ever left behind."""

import os
import secrets
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
        neighbour = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        # newline="": a "\n" stays one byte on Windows too, so equal runs give equal files.
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        # Not through mkstemp, whose files only their owner can read: to give them the usual permissions
        # the umask must be known, and to read it is to change it for every thread.
        with open(neighbour, mode.replace("w", "x"), **text) as file:
            temporary = neighbour
            yield file
            file.flush()
            os.fsync(file.fileno())  # a rename must not overtake the data it publishes
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(
            f"{path}: could not be written ({error.strerror or error}); "
            "free some space or choose another folder, then run again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def is_whole_archive(path: Path | str) -> bool:
    """Whether every member of a zip archive matches its checksum; torch's own loaders do not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # what is no archive any more fails in many ways
        return False
