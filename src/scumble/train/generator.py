"""Train the generator: any style in one pass.

The loss (:mod:`scumble.train.judge`) is measured in the distilled teacher's features first (a third of the exact one's cost, so three times
the steps in the same time), and in the exact teacher's to finish (``--judge teacher``). The eye can judge where there is no teacher, but
it is cheated: at an eye's style distance of 0.55 the teacher saw 0.89.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from scumble.engine import EYE_MULTIPLE
from scumble.errors import UsageError, in_range
from scumble.nets.eye import Eye
from scumble.nets.finish import Autocovariance, autocovariances, finish, joined, narrow
from scumble.nets.generator import MARGIN, MULTIPLE, Generator, Shape
from scumble.train.data import Crops, read_pictures, recolored
from scumble.train.judge import Balance, Judge, Views, painting_loss
from scumble.train.loop import CHECKPOINT, Recipe, fit, seeded, step_generator
from scumble.train.settings import at_least, on_device, sides

STYLE_ZOOM = (0.7, 1.5)
"""Windows that styles are measured in, relative to ``style_size``: brushes of many widths are seen."""
PHOTO_ZOOM = (0.8, 1.3)
"""The same where the style is a photograph."""
WORKS_SHARE = 0.15
"""Of the crops that styles are measured on, those out of ``works``."""
PHOTOS_SHARE, TURNED_SHARE, SPLIT_SHARE = 0.07, 0.3, 0.2
"""Of the styles that are learnt from: photographs, pictures turned by a quarter, and two side by side. A
net that saw paintings alone, and each upright, knows them by heart before it knows the next one."""
NOISE = 0.05
"""Of the style vector in training, in standard deviations of each of its numbers: styles that are nearly alike are painted alike."""
FRESH = 1
"""Kept styles that every step replaces."""
EASE = 4.0
"""At strength s above 1 the content weighs s to minus this as much as at 1: at 2 a sixteenth."""

RECIPE = Recipe(steps=20000, learning_rate=1e-3, warm_up=100, ema=0.998)


@torch.no_grad()
def style_vector(taps: list[Tensor]) -> Tensor:
    """Means and standard deviations of the eye's five taps, level by level, (N, 736)."""
    parts = []
    for t in taps:
        flat = t.flatten(2)
        mean = flat.mean(2)
        parts += [mean, (flat.square().mean(2) - mean.square()).clamp_min(0).sqrt()]
    return torch.cat(parts, 1)


@torch.no_grad()
def missed_in(
    model: Generator, eye: nn.Module, x: Tensor, modulation: Tensor, vectors: Tensor, wanted: Sequence[Autocovariance] | None
) -> Tensor:
    """By how much a draft of ``x`` (N, 3, H, W), painted with ``modulation`` (N, M), falls short of the style ``vectors`` (N, 736).

    Crops are not mirrored at the edge as pictures are; what shows there is left out.
    """
    in_range("size", x.shape[3], 2 * MARGIN + EYE_MULTIPLE, 100_000)  # or nothing is left to look at
    painted = model.paint(x, modulation)[0]
    if wanted is not None:
        painted = finish(painted, x, narrow(wanted))[0]
    inner = painted.clamp(0, 1)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous(memory_format=torch.channels_last)
    return vectors - style_vector(eye(inner))


@dataclass(frozen=True)
class Lesson:
    """Styles to paint in: the generator's input, what the judge wants to see, and what the finish gives."""

    vector: Tensor
    target: list[tuple[Tensor, Tensor]]
    wanted: list[Autocovariance]

    def split(self) -> list[Lesson]:
        """One a style, in half the memory (bfloat16: second moments go beyond half precision's range)."""
        return [
            Lesson(
                self.vector[i : i + 1],
                [(m[i : i + 1].bfloat16(), g[i : i + 1].bfloat16()) for m, g in self.target],
                [(m[i : i + 1], c[i : i + 1]) for m, c in self.wanted],
            )
            for i in range(len(self.vector))
        ]

    @staticmethod
    def joined(parts: list[Lesson]) -> Lesson:
        """Several as one batch, in float32."""
        target = [
            (torch.cat([m for m, _ in level]).float(), torch.cat([g for _, g in level]).float())
            for level in zip(*(p.target for p in parts), strict=True)
        ]
        return Lesson(torch.cat([p.vector for p in parts]), target, joined(*(p.wanted for p in parts)))


class Lessons:
    """The newest ``size`` of an endless row of single lessons, of which every step adds :data:`FRESH`.

    ``draw(rng)`` makes one. The i-th of the row depends on the seed and i alone, so a run that was resumed holds those of one that was not.
    """

    def __init__(self, draw: Callable[[torch.Generator], Lesson], size: int, seed: int) -> None:
        self._draw, self._size, self._seed = draw, size, seed
        self._kept: dict[int, Lesson] = {}
        self._end = 0

    def batch(self, n: int, rng: torch.Generator, step: int) -> Lesson:
        """``n`` of them at random, as they stand at ``step``."""
        size, begin = self._size, step * FRESH
        for i in range(max(begin, self._end), begin + size):
            self._kept[i % size] = self._draw(step_generator(self._seed, i)).split()[0]
        self._end = begin + size
        return Lesson.joined([self._kept[i] for i in torch.randint(size, (n,), generator=rng).tolist()])


def train_generator(
    pack: Path,
    eye: Eye,
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    judge: str = "eye",
    teacher_folder: Path | None = None,
    shape: Shape | None = None,
    start: Generator | None = None,
    warm_steps: int = 400,
    size: int = 128,
    batch: int = 4,
    style_size: int = 192,
    works: Path | None = None,
    cache: int = 0,
    content_target: float = 0.7,
    only_beyond: bool = False,
    only_look: bool = False,
    with_look: bool = False,
    device: str = "cpu",
    bfloat16: bool = False,
    validate: Callable[[Generator, Eye], Mapping[str, float]] | None = None,
    validate_minutes: float = 15.0,
) -> Generator:
    """Train (or go on training what ``folder`` holds); returns the moving average.

    Args:
        judge: one of :data:`~scumble.train.judge.JUDGES`: in whose features losses are measured.
        warm_steps: first steps as an auto-encoder, the content being its own style; without them colours take thousands of steps to come.
        size: side of the content's square crops in pixels. Larger ones paint whole pictures better, as the statistics of
            a deep level on a small crop are mostly chance: begin at 128, end with the pack's whole pictures at 288.
        style_size: side of the crops that styles are measured on, in pixels; 288 to end with.
        works: a folder of further styles, larger than those of the pack: there brushes are as wide as users' pictures have them.
        cache: so many style crops are kept as statistics (1.2 MB each), and one of them is replaced in every step: eye and judge see few;
            0 draws all of them anew in every step, the better choice on a GPU.
        content_target: the content distance to hold, see :class:`Balance`; on crops of 128 pixels it is 1.6 times that on whole pictures.
        only_beyond: move nothing but what a strength above 1 changes in ``start``; at 1 and below the net paints as before.
        only_look: move nothing but how far ``start`` goes for what its first painting missed; that painting stays as it is.
        with_look: every other batch is painted a second time for what its first painting missed, as pictures are by default, and judged so.
        bfloat16: networks (not losses) in bfloat16: on GPUs, and on processors that have it, a third less time.
        validate: called with the moving average and the eye; see :meth:`scumble.train.validation.Pairs.validate`.
    """
    if only_beyond and only_look:
        raise UsageError("--only-beyond and --only-look leave each other nothing to train; give one of them")
    if with_look and (only_beyond or only_look):
        raise UsageError("--with-look trains all of the net, --only-beyond and --only-look a part of it; give one of them")
    one_part = only_beyond or only_look
    if one_part and start is None:
        raise UsageError("--only-beyond and --only-look are for a generator that paints already: add --go-on")
    on_device(device)
    sides(MULTIPLE, size=size)
    sides(style_size=style_size)
    at_least(1 if one_part else 2, batch=batch)  # of all of the net's, one in every third batch is asked for itself
    at_least(0, cache=cache)
    in_range("content-target", content_target, 0, 10)
    last = torch.channels_last
    eye = eye.to(device).eval().requires_grad_(False).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    watching = Judge.named(judge, teacher_folder, device, bfloat16, eye)
    contents = Crops(read_pictures(pack / "content.tar"), device)
    painted_by_hand = [p for n in ("style.tar", "style_small.tar") for p in read_pictures(pack / n)]
    if works is not None:
        larger = read_pictures(works)
        painted_by_hand += larger * max(1, round(WORKS_SHARE / (1 - WORKS_SHARE) * len(painted_by_hand) / len(larger)))
    styles = Crops(painted_by_hand, device)
    generator = start or seeded(lambda: Generator(shape), recipe.seed)
    generator = generator.to(device).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    if start is None and not (folder / CHECKPOINT).exists():  # which would overwrite it
        generator.style_mean, generator.style_std = _standardise(eye, styles, style_size)
    # above strength 1 nothing steers it: it stays where that of a net trained to its end came to rest
    balance = Balance(content_target, 0.62 if only_beyond else 0.9 if only_look else 0.4)
    generator.requires_grad_(not one_part)
    generator.look.requires_grad_(only_look or with_look)  # nothing else makes a second painting
    if only_beyond:
        generator.beyond.requires_grad_(True)

    def picture(rng: torch.Generator) -> Tensor:
        photo, turned = torch.rand(2, generator=rng).tolist()
        source, zoom = (contents, PHOTO_ZOOM) if photo < PHOTOS_SHARE else (styles, STYLE_ZOOM)
        y = source.batch(1, style_size, rng, zoom=zoom)
        return y.rot90(1, (2, 3)) if turned < TURNED_SHARE else y

    def style_crop(rng: torch.Generator) -> Tensor:
        split, at = torch.rand(2, generator=rng).tolist()
        y = picture(rng)
        cut = round(style_size * (0.3 + 0.4 * at))
        return torch.cat([y[..., :cut], picture(rng)[..., cut:]], 3) if split < SPLIT_SHARE else y

    def drawn(n: int, rng: torch.Generator) -> Lesson:
        y = recolored(torch.cat([style_crop(rng) for _ in range(n)]), rng).contiguous(memory_format=last)
        with torch.no_grad():
            return Lesson(style_vector(eye(y)), watching.target(y), autocovariances(y))

    kept = Lessons(lambda rng: drawn(1, rng), cache, recipe.seed + 1) if cache else None

    def loss_of(model: nn.Module, rng: torch.Generator, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        assert isinstance(model, Generator)
        views = Views.drawn(contents, batch, size, rng)
        x = views.contents
        if step < warm_steps:
            with torch.no_grad():
                own = style_vector(eye(x))
            painted = model(x, own)
            l1, over = (painted - x).abs().mean(), (painted - painted.clamp(0, 1)).square().mean()
            return 4 * l1 + over, {"identity": l1.detach(), "over": over.detach()}
        # every third step one of the batch is asked for itself, without which strength 0 has nothing to stand on, and every third all
        # for more than strength 1
        same = int(step % 3 == 1 and not one_part)
        beyond = float(torch.rand((), generator=rng)) if only_beyond or (step % 3 == 2 and not one_part) else 0.0
        lesson = kept.batch(batch - same, rng, step) if kept else drawn(batch - same, rng)
        with torch.no_grad():
            own = [style_vector(eye(x[:same]))] if same else []
            wanted = lesson.wanted
            if same:
                wanted = joined(autocovariances(x[:same]), wanted)
        noise = torch.randn(lesson.vector.shape, generator=rng).to(device) * NOISE * model.style_std
        vectors = torch.cat([*own, lesson.vector + noise])
        again = only_look or (with_look and step % 2 == 1)
        missed = missed_in(model, eye, x, model.modulation(vectors), vectors, wanted) if again else None
        modulation = model.modulation(vectors, beyond=beyond, missed=missed)
        ease = (1 + beyond) ** EASE
        textures = wanted if again else narrow(wanted)
        loss, numbers, painted = painting_loss(model, watching, views, modulation, lesson.target, textures, balance, same, ease)
        identity = (painted[:same] - x[:same]).abs().mean() if same else x.new_zeros(())
        return loss + 4 * identity, numbers | {"identity": 3 * identity.detach()}

    def check(model: nn.Module, step: int) -> Mapping[str, float]:
        assert validate is not None
        assert isinstance(model, Generator)
        return validate(model, eye)

    trained = fit(
        generator, loss_of, recipe, folder, validate=check if validate else None, validate_minutes=validate_minutes, memory=balance.memory
    )
    assert isinstance(trained, Generator)
    return trained


@torch.no_grad()
def _standardise(eye: Eye, styles: Crops, size: int, n: int = 512) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(54321)
    v = torch.cat([style_vector(eye(styles.batch(16, size, rng, zoom=STYLE_ZOOM))) for _ in range(n // 16)])
    return v.mean(0), v.std(0).clamp_min(1e-3)
