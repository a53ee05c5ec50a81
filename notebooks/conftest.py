"""Under nbval the notebooks write into one temporary folder, which goes when the tests end.

Each of them would leave its checkpoints otherwise, gigabytes in all: nbval kills its kernels, so they
cannot clear up after themselves.
"""

import os
import shutil
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist: it has inherited the folder
        return
    folder = tempfile.mkdtemp(prefix="vision-notebooks-")
    os.environ["TMPDIR"] = folder  # the first that Python's tempfile looks at, on every system
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
