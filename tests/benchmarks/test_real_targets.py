"""What the cpu profile must reach on real images, and in what time, on two cores alone.

Needs DATA_DIR with `drive/` and `chest_xray/`. Where a test half with labels is there too, its bounds count.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

TARGETS = {
    "drive_unet": (600, {"val_dice": 0.78, "val_auc": 0.97, "test_dice": 0.82, "test_auc": 0.979}),
    "pneumonia_cnn": (900, {"val_auc": 0.99, "test_auc": 0.93}),
}


@pytest.mark.real
@pytest.mark.parametrize("run", TARGETS)
def test_the_cpu_profile_reaches_its_targets(run, tmp_path):
    if not os.environ.get("DATA_DIR"):
        pytest.skip("DATA_DIR is not set")
    seconds, bounds = TARGETS[run]
    command = [
        sys.executable,
        "-m",
        "helpers.cli",
        "run",
        run,
        "--profile",
        "cpu",
        "--results",
        str(tmp_path),
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - started
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((Path(tmp_path) / run / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    measured = {name: metrics[name] for name in bounds if name in metrics}
    print(f"\n{run}: {took:.0f} s of {seconds}, " + ", ".join(f"{n} {v:.4f}" for n, v in measured.items()))
    assert took < seconds
    for name, value in measured.items():
        assert value >= bounds[name], f"{name} is {value:.4f}, must be at least {bounds[name]}"
