"""One run in a process of its own: `python -m helpers.worker`, started by the batch.

The first line of standard input is the work: a JSON object with notebook, folder (where the executed
notebook goes) and parameters. Standard output carries one JSON object a line: {"done": cells, "total":
cells} after each cell, and last {"error": null}, or {"error": one line, "detail": lines for a terminal}.
The input stays open for as long as the batch lives; when it closes, the worker ends itself and its kernel.
Where the worker is killed, its kernel dies with it: at once on Linux, within a second elsewhere.
"""

import ctypes
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

START_ATTEMPTS = 3
# Two kernels that start at once can pick one port; the loser dies before it answers (papermill#511).
START_FAILURES = ("Kernel died before replying to kernel_info", "Address already in use")


def main() -> None:
    """Execute the notebook named on standard input; the outcome is the last line of standard output."""
    work = json.loads(sys.stdin.readline())
    # The kernel inherits descriptor 1: what it or a library prints there must not mix with the messages.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(**message: object) -> None:
        print(json.dumps(message), file=messages, flush=True)

    failure = None
    try:
        notebook, failure = _execute(Path(work["notebook"]), work["parameters"], send)
        if notebook is not None:
            _save(notebook, Path(work["folder"]))
    except Exception as error:  # whatever it is, the batch shows it and goes on
        failure = failure or {"error": _line(type(error).__name__, str(error)), "detail": []}
    send(**failure or {"error": None})


def _execute(path: Path, parameters: dict, send) -> tuple[object, dict | None]:
    """The executed notebook, as far as it came, and what went wrong (None: nothing)."""
    # jsonschema compiles a grammar for IRIs while it is imported (.9 s); no notebook holds one to check.
    sys.modules.setdefault("rfc3987_syntax", None)
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines
    from papermill.log import logger

    executed = None

    class Batch(Engine):
        """papermill's own, which also tells after each cell how far it is, and whose kernel dies with it."""

        @classmethod
        def execute_managed_notebook(cls, manager, kernel_name, **options):
            nonlocal executed
            executed = manager.nb
            complete = manager.cell_complete

            def cell_complete(cell, cell_index, **extra):
                complete(cell, cell_index=cell_index, **extra)
                send(done=cell_index + 1, total=len(manager.nb.cells))

            manager.cell_complete = cell_complete
            # The notebook has written its records; waiting until Python has taken torch down takes seconds.
            client = PapermillNotebookClient(
                manager, timeout=None, startup_timeout=60, kernel_name=kernel_name, log=logger,
                shutdown_kernel="immediate",
            )  # fmt: skip
            client.execute(**die_with(os.getpid()))

    papermill_engines.register("batch", Batch)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # Braces in a path are papermill's own placeholders.
            source = str(path).replace("{", "{{").replace("}", "}}")
            execute_notebook(source, None, parameters, engine_name="batch", progress_bar=False,
                             cwd=str(path.parent))  # fmt: skip
            return executed, None
        except PapermillExecutionError as error:
            return executed, _cell_failure(error)
        except DeadKernelError:
            sentence = "the notebook's process died in the middle of a cell; often the memory was full."
            return executed, {"error": sentence, "detail": [sentence]}
        except Exception as error:
            if not any(known in str(error) for known in START_FAILURES):
                raise
            if attempt == START_ATTEMPTS:
                sentence = (
                    f"the notebook's kernel died {attempt} times while it started; where other programs take "
                    'its ports, run again, else try "python -m ipykernel_launcher".'
                )
                return executed, {"error": sentence, "detail": [sentence]}
    raise AssertionError("the last attempt returns or raises")


def die_with(parent: int) -> dict[str, Callable[[], None]]:
    """Options of a child process that make Linux kill it when this process dies, however it dies.

    Elsewhere nothing: there a kernel looks every second whether its parent lives (ipykernel does).
    """
    if not sys.platform.startswith("linux"):
        return {}
    prctl = ctypes.CDLL(None).prctl
    set_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h

    def ask() -> None:
        prctl(set_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it was asked
            os._exit(1)

    return {"preexec_fn": ask}


def _cell_failure(error) -> dict:
    """A failed cell as the error's line, and the head of the cell with the end of its traceback."""
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
    traceback = [code for code in traceback if code.strip()]
    source = [line for line in error.source.splitlines() if line.strip()]
    line = _line(error.ename, error.evalue)
    return {
        "error": line,
        "detail": [
            f"In [{error.exec_count}]:",
            *(f"    {code}" for code in source[:3]),
            *(["    …"] if len(source) > 3 else []),
            *([line] if error.ename == "UserError" else traceback[-6:]),
        ],
    }


def _line(name: str, message: str) -> str:
    """An error in one line; a UserError's sentence stands for itself."""
    return " ".join((message if name == "UserError" else f"{name}: {message}").split())


def _save(notebook, folder: Path) -> None:
    """Write notebook.ipynb and notebook.html, each as a whole or not at all."""
    import nbformat
    from nbconvert.exporters import HTMLExporter

    from helpers.files import atomic_open
    from helpers.pages import TEMPLATES

    with atomic_open(folder / "notebook.ipynb") as file:
        nbformat.write(notebook, file)
    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": folder.name}})
    with atomic_open(folder / "notebook.html") as file:
        file.write(page)


def _end_with_parent() -> None:
    """Wait until the batch is gone (its end of standard input closes), then stop the kernel and leave."""
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held while the interpreter ends
        pass
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended first
            process.kill()
    os._exit(1)


if __name__ == "__main__":
    main()
