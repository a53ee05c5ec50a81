"""Epochs with checkpoints: the engine under every training in the notebooks."""

import io
import math
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from helpers import runtime
from helpers.errors import UserError
from helpers.files import atomic_open, is_whole_archive

SAVE_EVERY = 5.0  # seconds that a killed run may lose, beside the epoch it was in; writing takes time, too


class Epoch:
    """One epoch of a `Run`: hands out batches and collects what is logged. `number` counts from 1."""

    def __init__(self, run: "Run", number: int):
        self.run, self.number = run, number
        self.sums: dict[str, float] = {}
        self.weights: dict[str, float] = {}
        self.step, self.batch_size = 0, 1

    def batches(self, loader: Iterable) -> "Batches":
        """The loader's batches on the run's device, in the order and with the transforms of this epoch."""
        return Batches(self, loader)

    def log(self, **values: float) -> None:
        """Record numbers. Logged several times, a name's values are averaged, weighted by batch size.

        Raises UserError for a number of the training (named loss… or train_…) that is not finite;
        validation metrics may be undefined.
        """
        for name, value in values.items():
            value = float(value)
            if name.startswith(("train_", "loss")):
                self.require_finite(name, value)
            self.sums[name] = self.sums.get(name, 0.0) + value * self.batch_size
            self.weights[name] = self.weights.get(name, 0.0) + self.batch_size

    def require_finite(self, name: str, value: float) -> None:
        """Stop with epoch, step and learning rate when a loss is infinite or not a number."""
        if not math.isfinite(value):
            raise UserError(
                f"{self.run.name}: {name} became {value} in epoch {self.number}, step {self.step}, at "
                f"learning rate {self.run.learning_rate():g}; lower the learning rate or check the input."
            )

    def averages(self) -> dict[str, float]:
        return {name: total / self.weights[name] for name, total in self.sums.items()}


class Batches:
    """Batches of one epoch; knows the epoch, so that a loop over it can report where it is."""

    def __init__(self, epoch: Epoch, loader: Iterable):
        self.epoch, self.loader = epoch, loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        if hasattr(getattr(self.loader, "sampler", None), "set_epoch"):
            self.loader.sampler.set_epoch(self.epoch.number)
        try:
            for step, batch in enumerate(self.loader, 1):
                batch = to_device(batch)
                first = batch[0] if isinstance(batch, list | tuple) else batch
                self.epoch.step, self.epoch.batch_size = step, len(first)
                yield batch
                self.epoch.run.progress.set_postfix_str(f"step {step}/{len(self)}", refresh=False)
                self.epoch.run.progress.update(1 / len(self))
        finally:
            self.epoch.batch_size = 1  # what is logged after the batches is one number for the epoch


class Run:
    """Iterate to get epochs; keeps history, checkpoints and the best model, and resumes.

    epochs: how many in all. results_dir: `checkpoints/<name>.pt` (the best model, or the last
    where nothing is monitored) and `checkpoints/<name>.resume.pt` (all that a resume needs) go there.
    monitor, mode: the logged name whose "max" or "min" marks the best epoch.
    parts: everything with a `state_dict` that training changes: models, optimizers, schedulers,
    averaged models. Models are moved to the run's device.

    The resume file is written after the last epoch, and after any that ends `SAVE_EVERY` seconds or more
    after it was last written; the model's after the best or last epoch; each in one stroke. So a run killed
    at any moment loses little, resumes at the end of an epoch, and ends with the same weights as an
    undisturbed one. Epochs may be added, where no schedule was planned for fewer.
    Raises UserError when a checkpoint is damaged, or belongs to another model, schedule or seed, or to a
    longer training. Other settings, such as a learning rate, it does not tell apart; the batch does.
    """

    def __init__(self, epochs: int, results_dir: Path | str, name: str = "model", *, resume: bool = False,
                 monitor: str | None = None, mode: str = "max", **parts):  # fmt: skip
        if mode not in ("max", "min"):
            raise ValueError(f'mode is "max" or "min", not "{mode}"')
        self.epochs, self.name, self.monitor, self.mode, self.parts = epochs, name, monitor, mode, parts
        folder = Path(results_dir) / "checkpoints"
        self.best_file, self.resume_file = folder / f"{name}.pt", folder / f"{name}.resume.pt"
        self.rows: list[dict[str, float]] = []
        self.best_epoch = 0
        self.seconds = 0.0
        self.progress = tqdm(disable=True)
        self._saved = 0.0  # when, on the clock of `perf_counter`
        self._random: dict | None = None
        for model in self.models().values():
            model.to(runtime.current().device)
        if resume and self.resume_file.exists():
            self._resume()

    def __iter__(self) -> Iterator[Epoch]:
        done, self._saved = len(self.rows), time.perf_counter()
        for leftover in self.resume_file.parent.glob(f".{self.name}.*.part"):
            leftover.unlink(missing_ok=True)  # of a write that was killed
        if not done:  # killed early, this run must not pass for an earlier one
            self.resume_file.unlink(missing_ok=True)
            self.best_file.unlink(missing_ok=True)
        if self._random:  # not earlier: cells between Run(…) and its loop may have drawn numbers
            _set_random_states(self._random)
        # Plain tqdm with an explicit `disable`: the widgets of tqdm.auto ignore the environment.
        with tqdm(total=self.epochs, initial=done, desc=self.name, unit="epoch", disable=runtime.quiet(),
                  bar_format="{desc}: {n:.1f}/{total} epochs |{bar}| {elapsed} {postfix}",
                  ) as self.progress:  # fmt: skip
            for number in range(done + 1, self.epochs + 1):
                epoch, started = Epoch(self, number), time.perf_counter()
                yield epoch
                self.seconds += time.perf_counter() - started
                self._close(epoch)

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch: epoch and every logged number."""
        return pd.DataFrame(self.rows)

    def models(self) -> dict[str, nn.Module]:
        return {key: part for key, part in self.parts.items() if isinstance(part, nn.Module)}

    def learning_rate(self) -> float:
        """The present rate of the first optimizer's first group; nan without an optimizer."""
        rates = [p.param_groups[0]["lr"] for p in self.parts.values() if isinstance(p, torch.optim.Optimizer)]
        return float(rates[0]) if rates else math.nan

    def load_best(self) -> dict[str, float]:
        """Put the best epoch's weights into the models; returns that epoch's row of the history."""
        saved = load_checkpoint(self.best_file)
        try:
            for key, model in self.models().items():
                model.load_state_dict(saved["models"][key])
            return saved["metrics"]
        except (RuntimeError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.best_file}: does not fit this model ({_reason(error)}); "
                "train again with resume=False."
            ) from error

    def _close(self, epoch: Epoch) -> None:
        row = {"epoch": epoch.number, **epoch.averages()}
        if self.monitor and self.monitor not in row:
            raise ValueError(f'{self.name}: monitors "{self.monitor}", but epoch.log was given {list(row)}')
        self.rows.append(row)
        if self._is_best(row):
            self.best_epoch = epoch.number
            models = {key: model.state_dict() for key, model in self.models().items()}
            save_checkpoint(self.best_file, {"epoch": epoch.number, "metrics": row, "models": models})
        if len(self.rows) == self.epochs or time.perf_counter() - self._saved >= SAVE_EVERY:
            self._save_resume_file()

    def _save_resume_file(self) -> None:
        save_checkpoint(self.resume_file, {
            "rows": self.rows, "best_epoch": self.best_epoch, "seconds": self.seconds,
            "seed": runtime.current().seed, "threads": torch.get_num_threads(), "random": _random_states(),
            "parts": {key: part.state_dict() for key, part in self.parts.items()},
        })  # fmt: skip
        self._saved = time.perf_counter()

    def _is_best(self, row: dict[str, float]) -> bool:
        if not self.monitor:
            return len(self.rows) == self.epochs  # any earlier file would be overwritten
        if not self.best_epoch:
            return True
        value, best = row[self.monitor], self.rows[self.best_epoch - 1][self.monitor]
        if math.isnan(best):
            return True
        return value > best if self.mode == "max" else value < best

    def _resume(self) -> None:
        saved = load_checkpoint(self.resume_file)
        mend = "start afresh with resume=False or another results_dir."
        try:
            if set(saved["parts"]) != set(self.parts):
                raise UserError(
                    f"{self.resume_file}: holds {sorted(saved['parts'])}, this run has "
                    f"{sorted(self.parts)}; {mend}"
                )
            # Another seed splits the data in another way: it would be validated on what it was trained on.
            seed, before = runtime.current().seed, saved.get("seed")
            if before is not None and before != seed:  # None: of a version that did not save it
                raise UserError(
                    f"{self.resume_file}: was trained from seed {before}, this run has seed {seed}; "
                    f"give seed={before}, or {mend}"
                )
            if len(saved["rows"]) > self.epochs:
                raise UserError(
                    f"{self.resume_file}: was trained for {len(saved['rows'])} epochs, this run asks for "
                    f"{self.epochs}; give as many or more, or {mend}"
                )
            for key, part in self.parts.items():
                _require_same_plan(self.resume_file, part, saved["parts"][key], mend)
                part.load_state_dict(saved["parts"][key])
            self.rows, self.best_epoch, self.seconds = saved["rows"], saved["best_epoch"], saved["seconds"]
            self._random, threads = saved["random"], saved["threads"]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.resume_file}: does not fit this model ({_reason(error)}); {mend}"
            ) from error
        if threads != torch.get_num_threads():
            # Sums split among other numbers of threads round differently: close, but not equal.
            print(f"{self.name}: resumed with {torch.get_num_threads()} threads after {threads}; "
                  "the result will differ in the last digits.")  # fmt: skip
        print(f"{self.name}: resumed after epoch {len(self.rows)} of {self.epochs}.")


def _require_same_plan(file: Path, part: object, saved: dict, mend: str) -> None:
    """Check that a schedule ends where it was planned to end: one-cycle (steps) or linear (iters)."""
    for length in ("total_steps", "total_iters"):
        steps, before = getattr(part, length, None), saved.get(length)
        if steps != before:
            raise UserError(
                f"{file}: its schedule was planned for {before} steps, this run has {steps}; "
                f"give the same epochs and batch size, or {mend}"
            )


def _random_states() -> dict[str, Tensor]:
    """The states of torch's generators that this run draws from: the CPU's, and its device's."""
    states, device = {"cpu": torch.get_rng_state()}, runtime.current().device
    kind = torch.device(device).type
    if kind != "cpu":
        states[kind] = torch.get_device_module(kind).get_rng_state(device)
    return states


def _set_random_states(states: dict[str, Tensor]) -> None:
    """Put the generators back. A state of another kind of device is left out: there it means nothing."""
    torch.set_rng_state(states["cpu"])
    device = runtime.current().device
    kind = torch.device(device).type
    if kind != "cpu" and kind in states:
        state = states[kind]
        # Earlier versions saved a list, with the state of every GPU of the machine.
        state = state[0] if isinstance(state, list) else state
        torch.get_device_module(kind).set_rng_state(state, device)


def _reason(error: Exception) -> str:
    """The telling line of an error; torch puts the class in the first and what is wrong in the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return textwrap.shorten(lines[min(1, len(lines) - 1)].rstrip("."), 200)


def save_checkpoint(file: Path, content: dict) -> None:
    """Write a checkpoint of tensors, numbers, strings, lists and dicts in one stroke."""
    buffer = io.BytesIO()  # straight to a full disk, torch's writer would hide the reason in its own error
    torch.save(content, buffer)
    with atomic_open(file, "wb") as handle:
        handle.write(buffer.getbuffer())


def load_checkpoint(file: Path) -> dict:
    """Read a checkpoint to the CPU, executing nothing in it. UserError if it is damaged or not there."""
    if not file.is_file():
        raise UserError(f"{file}: no such checkpoint; train first, or correct the folder.")
    try:
        if not is_whole_archive(file):
            raise ValueError("checksum")
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, all with the same mend
        raise UserError(
            f"{file}: the checkpoint is damaged; delete it and train again (resume=False)."
        ) from error


def to_device(batch):
    """Move tensors of a batch to the run's device, images in channels_last order."""
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(item) for item in batch)
    layout = torch.channels_last if batch.dim() == 4 else torch.preserve_format
    return batch.to(runtime.current().device, non_blocking=True, memory_format=layout)


def train_epoch(model: nn.Module, batches: Batches, criterion: Callable, optimizer, scheduler=None,
                after_step: Callable[[], None] | None = None) -> float:  # fmt: skip
    """One pass over `epoch.batches(loader)`; returns the loss, averaged by sample.

    A batch is (input, target, …): the criterion gets the model's output and all that follows the input.
    scheduler: stepped after every batch (one-cycle). after_step: called after every batch (weight
    averaging). Raises UserError when the loss is not finite.
    """
    model.train()
    total, seen = 0.0, 0
    for inputs, *targets in batches:
        with runtime.current().autocast():
            outputs = model(inputs)
        loss = criterion(outputs.float(), *targets)  # sums of many small terms need fp32
        value = loss.item()
        batches.epoch.require_finite("train_loss", value)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if after_step is not None:
            after_step()
        total, seen = total + value * len(inputs), seen + len(inputs)
    return total / max(seen, 1)


@torch.no_grad()  # inference mode's tensors could not be trained on, nor changed in place, afterwards
def predict(model: Callable[[Tensor], Tensor], loader: Iterable) -> tuple[Tensor, ...]:
    """Outputs for a whole loader, on the CPU in fp32, followed by the loader's targets: (outputs, *targets).

    A model is in eval mode meanwhile; any other callable from a batch of images to outputs will do.
    """
    mode = model.training if isinstance(model, nn.Module) else None
    if mode is not None:
        model.eval()
    collected = []
    for batch in loader:
        inputs, *targets = to_device(batch)
        with runtime.current().autocast():
            outputs = model(inputs)
        collected.append([outputs.float().cpu(), *(t.cpu() for t in targets)])
    if mode is not None:
        model.train(mode)
    return tuple(torch.cat(part) for part in zip(*collected))


def evaluate(
    model, loader: Iterable, metrics: Callable[..., dict[str, float]], split: str
) -> dict[str, float]:
    """`metrics(outputs, *targets)` over a whole loader at once, names prefixed: {"val_auc": …}.

    Metrics see every sample together, so a short last batch weighs what its samples weigh.
    """
    return {f"{split}_{name}": value for name, value in metrics(*predict(model, loader)).items()}


def fit(run: Run, model: nn.Module, train_loader, val_loader, criterion, optimizer,
        metrics: Callable[..., dict[str, float]], scheduler=None) -> pd.DataFrame:  # fmt: skip
    """Train for the run's epochs, validate after each, load the best; returns the history."""
    for epoch in run:
        epoch.log(train_loss=train_epoch(model, epoch.batches(train_loader), criterion, optimizer, scheduler))
        epoch.log(**evaluate(model, val_loader, metrics, split="val"))
    run.load_best()
    return run.history
