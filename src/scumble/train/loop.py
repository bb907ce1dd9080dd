"""One training loop for all nets: Adam, warm-up and cosine, EMA, checkpoints that resume exactly, a time budget.

Every step draws its randomness from a generator seeded with (seed, step), so a run that was stopped and resumed sees the
same batches as one that was not.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scumble._files import reason
from scumble.errors import InputError, in_range, whole
from scumble.train.settings import at_least

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)
LossOf = Callable[[nn.Module, torch.Generator, int], tuple[Tensor, Mapping[str, Tensor | float]]]
CHECKPOINT = "checkpoint.pt"
"""In the folder of a training: what it goes on from."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. The cosine runs over ``steps``, however many sessions they take."""

    steps: int
    learning_rate: float = 1e-3
    final_rate: float = 0.02
    """The last learning rate, as a share of the first."""
    warm_up: int = 50
    ema: float = 0.995
    clip: float = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    seed: int = 0
    minutes: float = math.inf
    """Stop (with a checkpoint) when this much time has passed in this session."""
    checkpoint_seconds: float = 60.0
    log_every: int = 20

    def __post_init__(self) -> None:
        at_least(1, steps=whole("steps", self.steps))
        at_least(0, seed=whole("seed", self.seed), minutes=self.minutes)
        in_range("learning-rate", self.learning_rate, 0, 1)


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate at ``step``: linear warm-up, then half a cosine down to ``final_rate``."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    t = min(1.0, (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up))
    return recipe.learning_rate * (recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * t)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step: a run that was interrupted draws the same crops as one that was not."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def seeded(make: Callable[[], Module], seed: int) -> Module:
    """A module whose initial weights come from ``seed``; the global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def fit(
    model: nn.Module,
    loss_of: LossOf,
    recipe: Recipe,
    folder: Path,
    *,
    validate: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    validate_minutes: float = 10.0,
    memory: dict[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> nn.Module:
    """Train ``model`` in place, starting from ``folder/checkpoint.pt`` if it is there; return its moving average.

    ``loss_of(model, generator, step)`` gives the loss and named numbers for ``folder/log.csv``.
    ``validate`` gets the average; its numbers go to ``folder/validation.csv``, and the average with the lowest ``score``
    among them (if it gives one) is kept as ``folder/best.safetensors``. ``memory`` is what ``loss_of`` has to remember from step to
    step beside the model: it is kept in the checkpoint and filled from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99))
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema), use_buffers=False
    )
    memory = {} if memory is None else memory
    step = _resume(folder, model, average, optimizer, memory)
    start = last_save = last_validation = clock()
    sums: dict[str, Tensor | float] = {}
    summed = 0
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        model.train()
        loss, numbers = loss_of(model, step_generator(recipe.seed, step), step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip or math.inf)
        if torch.isfinite(norm):
            optimizer.step()
            average.update_parameters(model)
        else:  # of ten thousand steps one, after which nothing would be a number any more
            log.warning("step %d left out: its gradient is not finite", step)
            numbers, loss = dict.fromkeys(numbers, 0.0), torch.zeros(())
        step += 1
        # .item() waits for the device, so numbers are collected as tensors and read only when they are logged
        for name, value in {"loss": loss.detach(), **numbers}.items():
            sums[name] = sums.get(name, 0.0) + value
        now = clock()
        summed += 1
        if step % recipe.log_every == 0:
            means = {k: float(v) / summed for k, v in sums.items()}
            _log(folder, step, now - start, means)
            sums, summed = {}, 0
        out_of_time = now - start > recipe.minutes * 60
        if now - last_save > recipe.checkpoint_seconds or out_of_time or step == recipe.steps:
            _save(folder, model, average, optimizer, memory, step, recipe)
            last_save = now
        if validate and (now - last_validation > validate_minutes * 60 or out_of_time or step == recipe.steps):
            scores = validate(average.module.eval(), step)
            _log(folder, step, now - start, scores, "validation.csv")
            if "score" in scores:
                _keep_best(folder, average.module, scores["score"])
            last_validation = clock()
        if out_of_time:
            break
    return average.module.eval()


def _resume(folder: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, memory: dict[str, float]) -> int:
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        step = int(state["step"])
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        memory.update(state.get("memory", {}))
        # parameters are counted and not looked at: one part of a net would go on with the moments of another that has as many
        if any(s["exp_avg"].shape != p.shape for p, s in optimizer.state.items()):
            raise ValueError("moments of other parameters")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # PyTorch meets a damaged file with any of a dozen, and other nets and optimisers with more
        raise InputError(f"{path} is damaged, or of a training with other settings; remove it or give another --out") from error
    log.info("resumed %s at step %d", path, step)
    return step


def _save(
    folder: Path,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    memory: Mapping[str, float],
    step: int,
    recipe: Recipe,
) -> None:
    part = folder / f"{CHECKPOINT}.part"
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "memory": dict(memory),
        "step": step,
        "recipe": asdict(recipe),
    }
    try:
        with part.open("wb") as file:
            torch.save(state, file)
        part.replace(folder / CHECKPOINT)
    except (OSError, RuntimeError) as error:  # PyTorch's own, when an archive breaks off
        why = error if isinstance(error, OSError) else error.__context__
        told = reason(why) if isinstance(why, OSError) else "it breaks off"
        raise InputError(
            f"cannot write {folder / CHECKPOINT} ({told}); free space, and the same command goes on from the last one"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _keep_best(folder: Path, model: nn.Module, score: float) -> None:
    path = folder / "best.safetensors"
    if path.exists():
        with safe_open(path, framework="pt") as f:
            if float(f.metadata()["score"]) <= score:
                return
    part = folder / "best.safetensors.part"
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part, {"score": repr(score)})
    part.replace(path)


def _log(folder: Path, step: int, seconds: float, numbers: Mapping[str, float], name: str = "log.csv") -> None:
    log.info("step %d  %.0f s  %s", step, seconds, "  ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
    path = folder / name
    row = {"step": step, "seconds": round(seconds, 1)} | {k: f"{v:.6g}" for k, v in numbers.items()}
    columns = _columns(path, list(row))
    with path.open("a", newline="") as f:
        csv.DictWriter(f, columns, restval="").writerow(row)


def _columns(path: Path, wanted: list[str]) -> list[str]:
    """The columns of the table at ``path``, which is begun, or written anew with empty cells, where it lacks some that are ``wanted``."""
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as f:
            rows = list(csv.reader(f))
    header, *before = rows or [[]]
    columns = [*header, *(name for name in wanted if name not in header)]
    if columns == header:
        return header
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="") as f:
        writer = csv.DictWriter(f, columns, restval="")
        writer.writeheader()
        # runs begun when the header stayed as the first row had it hold longer rows, which have what is wanted now
        writer.writerows(dict(zip(header if len(row) <= len(header) else wanted, row, strict=False)) for row in before)
    part.replace(path)
    return columns
