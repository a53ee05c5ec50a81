"""The engine under every training: history, checkpoints, resume, and what stops it."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny_training as tiny
import torch
from torch import nn

from helpers import loaders, runtime, training
from helpers.errors import UserError
from helpers.training import Run, evaluate, fit, load_checkpoint, predict, save_checkpoint, train_epoch

pytestmark = pytest.mark.usefixtures("started")


def same(a, b) -> bool:
    """Equality to the last bit through nested state dicts."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a  # nan equals nan here


def ends_alike(one: Run, other: Run) -> bool:
    states = [{key: part.state_dict() for key, part in run.parts.items()} for run in (one, other)]
    return same(*states) and one.history.equals(other.history) and one.best_epoch == other.best_epoch


@pytest.fixture(autouse=True)
def saved_after_every_epoch(monkeypatch):
    """The epochs of these tests take milliseconds; what is asked here is how a run goes on from one."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Run:
    """A training that nothing interrupted."""
    runtime.start(seed=0, device="cpu")
    return tiny.train(tmp_path_factory.mktemp("undisturbed"))


def test_the_history_has_a_row_an_epoch(undisturbed):
    history = undisturbed.history
    assert list(history) == ["epoch", "train_loss", "val_auc"]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["train_loss"].nunique() == 4
    assert undisturbed.seconds > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_seeds_give_equal_runs_with_any_number_of_workers(undisturbed, tmp_path, workers):
    run = tiny.train(tmp_path, workers=workers)
    assert run.history.to_csv(index=False) == undisturbed.history.to_csv(index=False)
    assert ends_alike(run, undisturbed)


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    process = subprocess.Popen(
        [sys.executable, Path(tiny.__file__), str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"VISION_NOTEBOOKS_QUIET": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    with process:
        assert any("in the middle" in line for line in process.stdout)
        process.kill()
    half_written = tmp_path / "checkpoints" / ".tiny.pt.abc.part"  # what a kill leaves that hits a write
    half_written.write_text("half")
    run = tiny.train(tmp_path, resume=True)
    assert run.history["epoch"].tolist() == [1, 2, 3, 4]
    assert ends_alike(run, undisturbed)
    assert not half_written.exists()
    assert same(load_checkpoint(run.best_file), load_checkpoint(undisturbed.best_file))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [(1, 1), (2, 4)])
def test_an_interrupted_run_resumes_wherever_it_was(undisturbed, tmp_path, capsys, workers, at):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, workers=workers, at=at, then=interrupt)
    capsys.readouterr()
    torch.rand(at[0])  # other cells may draw random numbers before the loop starts again
    assert ends_alike(tiny.train(tmp_path, resume=True, workers=workers), undisturbed)
    resumed = "tiny: resumed after epoch 1 of 4" in capsys.readouterr().out
    assert resumed == (at[0] > 1)  # within the first epoch there is nothing to go on from


def test_short_epochs_share_a_resume_file(tmp_path, monkeypatch):
    """Two seconds each, five in all: saved after the third and after the last."""
    now, on_disk = 0.0, []
    monkeypatch.setattr(training, "SAVE_EVERY", 5)
    monkeypatch.setattr(training.time, "perf_counter", lambda: now)
    run = Run(5, tmp_path, model=nn.Linear(1, 1))
    for epoch in run:
        on_disk.append(len(load_checkpoint(run.resume_file)["rows"]) if run.resume_file.exists() else 0)
        epoch.log(loss=1)
        now += 2
    assert on_disk == [0, 0, 0, 3, 3]
    assert len(load_checkpoint(run.resume_file)["rows"]) == 5


def test_a_fresh_run_killed_early_does_not_resume_from_an_older_one(undisturbed, tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    tiny.train(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, at=(1, 1), then=interrupt)
    run = tiny.prepare(tmp_path, resume=True)
    assert len(run.history) == 0
    assert ends_alike(tiny.train(tmp_path, resume=True), undisturbed)


def test_a_resume_with_nothing_left_to_do_has_history_and_best_weights(undisturbed, tmp_path):
    tiny.train(tmp_path)
    run = tiny.prepare(tmp_path, resume=True)
    assert list(run) == []
    assert run.history.equals(undisturbed.history)
    assert run.seconds > 0
    best = run.load_best()
    assert best == run.rows[run.best_epoch - 1]
    saved = load_checkpoint(undisturbed.best_file)["models"]
    assert same(dict(run.parts["model"].state_dict()), dict(saved["model"]))
    assert evaluate(run.parts["model"], tiny.data()[1], tiny.scores, "val")["val_auc"] == best["val_auc"]


def play(folder: Path, values: list[float], name: str = "play", **options) -> tuple[Run, nn.Module]:
    """A run of a model whose weight is the epoch's number, logging `values` as score."""
    model = nn.Linear(1, 1)
    run = Run(len(values), folder, name, **options, model=model)
    for epoch in run:
        nn.init.constant_(model.weight, epoch.number)
        epoch.log(score=values[epoch.number - 1])
    return run, model


@pytest.mark.parametrize(
    ("options", "values", "best"),
    [
        ({"monitor": "score"}, [1, 3, 3, 2], 2),
        ({"monitor": "score", "mode": "min"}, [2, 1, 1, 3], 2),
        ({"monitor": "score"}, [math.nan, 1, math.nan], 2),
        ({"monitor": "score", "mode": "min"}, [math.nan, math.nan], 2),
        ({}, [3, 2, 1], 3),
    ],
)
def test_the_best_epoch_is_kept(tmp_path, options, values, best):
    run, model = play(tmp_path, values, **options)
    assert run.best_epoch == best
    assert run.load_best()["epoch"] == best
    assert model.weight.item() == best


def test_without_a_monitor_the_model_appears_with_the_last_epoch(tmp_path):
    play(tmp_path, [1, 2, 3])
    run, seen = Run(3, tmp_path, "play", model=nn.Linear(1, 1)), []
    for _ in run:
        seen.append(run.best_file.exists())  # of the epochs before this one, or of the older run
    assert seen == [False, False, False]
    assert run.load_best()["epoch"] == 3


def test_several_runs_share_a_folder_under_their_names(tmp_path):
    play(tmp_path, [1, 2], "first")
    play(tmp_path, [1, 2, 3], "second")
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        "first.pt", "first.resume.pt", "second.pt", "second.resume.pt",
    ]  # fmt: skip
    resumed = Run(3, tmp_path, "second", resume=True, model=nn.Linear(1, 1))
    assert resumed.history["score"].tolist() == [1, 2, 3]


def test_checkpoints_hold_nothing_that_could_run(undisturbed):
    for file in (undisturbed.best_file, undisturbed.resume_file):
        assert isinstance(torch.load(file, weights_only=True), dict)


def test_a_monitor_that_is_never_logged_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"""monitors "other", but epoch\.log was given .*'score'"""):
        play(tmp_path, [1], monitor="other")
    with pytest.raises(ValueError, match='not "maximum"'):
        Run(1, tmp_path, mode="maximum")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_named_with_the_mend(tmp_path, damage):
    run, _ = play(tmp_path, [1])
    content = bytearray(run.resume_file.read_bytes())
    weight = content.find(torch.ones(1).numpy().tobytes())
    content[weight] ^= 1  # torch itself would load it
    run.resume_file.write_bytes(
        {"cut": content[:500], "flipped": content, "empty": b"", "text": b"no checkpoint"}[damage]
    )
    with pytest.raises(
        UserError, match=r"play\.resume\.pt: the checkpoint is damaged; delete it and train again"
    ):
        Run(1, tmp_path, "play", resume=True, model=nn.Linear(1, 1))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"play\.pt: no such checkpoint; train first"):
        Run(1, tmp_path, "play", model=nn.Linear(1, 1)).load_best()


def test_a_checkpoint_of_another_setting_is_named(tmp_path):
    tiny.train(tmp_path, epochs=1)
    with pytest.raises(UserError, match=r"size mismatch for 0\.weight.*start afresh with resume=False"):
        tiny.prepare(tmp_path, epochs=1, resume=True, width=5)
    with pytest.raises(UserError, match="planned for 4 steps, this run has 8; give the same epochs"):
        tiny.prepare(tmp_path, epochs=2, resume=True)
    with pytest.raises(UserError, match=r"holds \['average', .*this run has \['net'\]"):
        Run(1, tmp_path, "tiny", resume=True, net=nn.Linear(1, 1))
    save_checkpoint(tmp_path / "checkpoints" / "tiny.resume.pt", {"weights": torch.ones(1)})
    with pytest.raises(UserError, match=r"tiny\.resume\.pt: does not fit this model \('parts'\)"):
        tiny.prepare(tmp_path, resume=True)
    with pytest.raises(UserError, match=r"tiny\.pt: does not fit this model"):
        tiny.prepare(tmp_path, width=5).load_best()


def test_a_checkpoint_of_another_seed_or_a_longer_training_is_named(tmp_path):
    """Another seed's validation images are, most of them, images that this model was trained on."""
    play(tmp_path, [1, 2, 3])
    with pytest.raises(UserError, match=r"play\.resume\.pt: was trained for 3 epochs, this run asks for 2"):
        Run(2, tmp_path, "play", resume=True, model=nn.Linear(1, 1))
    runtime.start(seed=1, device="cpu")
    with pytest.raises(
        UserError, match=r"was trained from seed 0, this run has seed 1; give seed=0, or start"
    ):
        Run(3, tmp_path, "play", resume=True, model=nn.Linear(1, 1))


def test_epochs_may_be_added(tmp_path):
    play(tmp_path, [1, 2])
    run, _ = play(tmp_path, [1, 2, 5], resume=True)
    assert run.history["score"].tolist() == [1, 2, 5]
    assert run.load_best()["epoch"] == 3


def test_a_linear_schedule_ends_where_it_was_planned_to_end(tmp_path):
    def prepare(steps: int, **options) -> Run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
        return Run(2, tmp_path, **options, model=model, optimizer=optimizer, schedule=schedule)

    list(prepare(4))
    assert len(prepare(4, resume=True).history) == 2
    with pytest.raises(UserError, match="planned for 4 steps, this run has 8"):
        prepare(8, resume=True)


def test_checkpoints_of_earlier_versions_and_other_devices_go_on(tmp_path):
    """They had no seed, and the states of all GPUs in a list."""
    run, _ = play(tmp_path, [1])
    saved = load_checkpoint(run.resume_file)
    del saved["seed"]
    saved["random"]["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * 4
    save_checkpoint(run.resume_file, saved)
    run, _ = play(tmp_path, [1, 2], resume=True)
    assert len(run.history) == 2


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_the_generator_of_the_runs_own_device_is_kept(monkeypatch, device):
    """A stand-in for torch.mps and torch.cuda, with a state for each device that it is asked for."""
    states = {device: torch.ones(1)}
    module = SimpleNamespace(get_rng_state=states.get, set_rng_state=lambda new, on: states.update({on: new}))
    monkeypatch.setattr(torch, "get_device_module", lambda kind: {device.split(":")[0]: module}[kind])
    monkeypatch.setattr(runtime, "current", lambda: runtime.Runtime(0, device, "fp32", 1))
    saved = training._random_states()
    states[device] = torch.zeros(1)
    training._set_random_states(saved)
    assert states == {device: torch.ones(1)}
    training._set_random_states({"cpu": saved["cpu"], "xpu": torch.zeros(1)})
    assert states == {device: torch.ones(1)}


def test_other_threads_are_told(tmp_path, capsys):
    play(tmp_path, [1])
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        Run(1, tmp_path, "play", resume=True, model=nn.Linear(1, 1))
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert f"resumed with {threads + 1} threads after {threads}; the result will differ" in out


def test_log_averages_by_sample(tmp_path):
    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    loader = loaders.make_loader(loaders.ImageDataset(images, range(5)), 2)
    run = Run(1, tmp_path, player=nn.Linear(1, 1))
    for epoch in run:
        for step, (batch, _) in enumerate(epoch.batches(loader), 1):
            epoch.log(loss_D=step)
            assert (epoch.step, epoch.batch_size) == (step, len(batch))
        epoch.log(val_auc=0.5, undefined=math.nan)
    row = run.rows[0]
    assert row["loss_D"] == pytest.approx((2 * 1 + 2 * 2 + 1 * 3) / 5)
    assert row["val_auc"] == 0.5
    assert math.isnan(row["undefined"])


def test_the_loss_of_an_epoch_is_averaged_by_sample(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2)
    loader = loaders.make_loader(loaders.ImageDataset(images, range(5)), 2)
    still = torch.optim.SGD(model.parameters(), lr=0)

    def criterion(outputs, labels):
        return labels.float().mean() * (outputs * 0 + 1).mean()

    for epoch in Run(1, tmp_path, model=model):
        assert train_epoch(model, epoch.batches(loader), criterion, still) == pytest.approx(2)


def test_the_criterion_gets_all_targets(tmp_path):
    images, masks = torch.rand(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    loader = loaders.make_loader(loaders.SegmentationDataset(images, masks), 2)
    model = nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    shapes = set()

    def criterion(outputs, target, weight):
        shapes.add((outputs.shape[1:], target.shape[1:], weight.shape[1:]))
        return ((outputs - target) * weight).square().mean()

    for epoch in Run(1, tmp_path, model=model):
        train_epoch(model, epoch.batches(loader), criterion, optimizer)
    assert shapes == {((1, 4, 4),) * 3}
    assert [part.shape for part in predict(model, loader)] == [(3, 1, 4, 4)] * 3


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_rate(tmp_path, value):
    model = tiny.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    run = Run(3, tmp_path, "doomed", model=model, optimizer=optimizer)
    losses = iter([1.0] * 4 + [1.0, value])
    weights = []

    def criterion(outputs, labels):
        weights.append(model[0].weight.detach().clone())
        return outputs.mean() * next(losses)

    def loop() -> None:
        for epoch in run:
            epoch.log(train_loss=train_epoch(model, epoch.batches(tiny.data()[0]), criterion, optimizer))

    with pytest.raises(UserError) as caught:
        loop()
    message = str(caught.value)
    assert "doomed: train_loss became " in message
    assert " in epoch 2, step 2, at learning rate 0.25" in message
    assert "lower the learning rate" in message
    assert torch.equal(weights[-1], model[0].weight)  # not spoilt by the last step
    assert len(weights) == 6
    assert len(run.history) == 1


def test_a_logged_loss_that_is_not_finite_stops_too(tmp_path):
    for epoch in Run(1, tmp_path, model=nn.Linear(1, 1)):
        with pytest.raises(UserError, match="loss_G became nan in epoch 1, step 0, at learning rate nan"):
            epoch.log(loss_G=math.nan)
        epoch.log(val_auc=math.nan)


def test_evaluation_sees_all_samples_at_once_in_eval_mode_and_leaves_the_mode():
    model, loader = tiny.network().train(), tiny.data()[1]
    seen = []
    result = evaluate(model, loader, lambda outputs, labels: seen.append(len(labels)) or {"n": 1.0}, "test")
    assert result == {"test_n": 1.0}
    assert seen == [20]
    assert model.training
    outputs, labels = predict(model, loader)
    assert torch.equal(outputs, predict(model, loader)[0])
    assert labels.tolist() == [0, 1] * 10
    outputs.requires_grad_()  # what comes back may be trained on (temperature scaling)
    assert predict(lambda images: images.mean((1, 2, 3)), loader)[0].shape == (20,)


def test_fit_trains_and_loads_the_best(tmp_path):
    model, (train_loader, val_loader) = tiny.network(), tiny.data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run(3, tmp_path, monitor="val_auc", model=model, optimizer=optimizer)
    history = fit(run, model, train_loader, val_loader, nn.CrossEntropyLoss(), optimizer, tiny.scores)
    assert isinstance(history, pd.DataFrame)
    assert len(history) == 3
    assert evaluate(model, val_loader, tiny.scores, "val")["val_auc"] == history["val_auc"].max()


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
import torch
from helpers import training
from helpers.errors import UserError

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for size in (50_000, 1_000_000):
    try:
        training.save_checkpoint(folder / "a.pt", {"x": torch.ones(size)})
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of files")
def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path):
    """A limit on the size of files fails a write in its middle, as a full disk does."""
    save_checkpoint(tmp_path / "a.pt", {"x": torch.zeros(3)})
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a.pt: could not be written (File too large); free some space") == 2
    assert os.listdir(tmp_path) == ["a.pt"]
    assert torch.equal(load_checkpoint(tmp_path / "a.pt")["x"], torch.zeros(3))


def test_batches_reach_the_device_with_channels_last():
    image, *rest = training.to_device([torch.zeros(2, 3, 4, 4), torch.zeros(2)])
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert rest[0].device.type == "cpu"
