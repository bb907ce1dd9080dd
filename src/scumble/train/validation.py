"""Validation of the generator on pairs of pictures that training never sees, in the teacher's features."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scumble.errors import InputError
from scumble.nets.eye import Eye
from scumble.nets.finish import Autocovariance, autocovariances, finish, narrow
from scumble.nets.generator import MARGIN, MULTIPLE, Generator
from scumble.nets.losses import content_loss, structure_loss
from scumble.picture import Picture
from scumble.style import REFERENCE
from scumble.train.generator import style_vector
from scumble.train.judge import moments, style_distance
from scumble.train.teacher import Teacher


def paint(generator: Generator, x: Tensor, style: Tensor, wanted: Sequence[Autocovariance]) -> Tensor:
    """A draft of (1, 3, H, W) of any size, with the margin that inference gives it and finished; clipped."""
    h, w = x.shape[2:]
    below, right = -(h + 2 * MARGIN) % MULTIPLE, -(w + 2 * MARGIN) % MULTIPLE
    padded = F.pad(x, (MARGIN, MARGIN + right, MARGIN, MARGIN + below), mode="reflect")
    painted = generator(padded, style)[:, :, MARGIN : MARGIN + h, MARGIN : MARGIN + w]
    return finish(painted, x, narrow(wanted))[0].clamp(0, 1)


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as f:
            rows = [(r["content"], r["style"]) for r in csv.DictReader(f)]
    except KeyError as error:
        raise InputError(f"{table} has no column {error}; a table of pairs has the columns content and style") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a table in UTF-8 ({error}); give a CSV with the columns content and style") from error
    if not rows:
        raise InputError(f"{table} holds no pairs; a table of pairs has the columns content and style, and a row for each")
    return rows


class Pairs:
    """Content and style pictures of a ``pairs.csv`` (columns content, style; files in ``dev/content`` and ``dev/style`` beside it)."""

    def __init__(self, table: Path, teacher: Teacher, *, size: int = 512, paint_side: int = REFERENCE, every: int = 1) -> None:
        """Read everything once, to where the ``teacher`` is.

        Args:
            size: side of the squares in which features are compared.
            paint_side: pictures are painted at this many pixels squared.
            every: take each n-th row of the table.
        """
        self.teacher, self.size, self.paint_side = teacher, size, paint_side
        self.rows = _rows(table)[::every]
        root = table.parent / "dev"
        self.contents = {c: self._read(root / "content" / f"{c}.jpg", table) for c, _ in self.rows}
        self.styles = {s: self._read(root / "style" / f"{s}.jpg", table) for _, s in self.rows}
        with torch.no_grad():
            self.content_taps = {c: [t.half() for t in self._see(x)[2:4]] for c, x in self.contents.items()}
            self.style_moments = {s: [moments(t) for t in self._see(x)] for s, x in self.styles.items()}

    def _read(self, path: Path, table: Path) -> Tensor:
        if not path.exists():
            raise InputError(f"{table} names {path.stem!r}, and there is no {path.absolute()}; put the picture there or take out the row")
        picture = Picture.open(path)
        scale = min(1.0, self.paint_side / (picture.width * picture.height) ** 0.5)
        picture = picture.scaled(scale)
        return torch.from_numpy(np.ascontiguousarray(picture.pixels.transpose(2, 0, 1)))[None].to(self.teacher.mean.device)

    def _see(self, x: Tensor) -> list[Tensor]:
        return self.teacher(F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False))

    @torch.no_grad()
    def validate(self, generator: Generator, eye: Eye) -> Mapping[str, float]:
        """Means of content, structure and style distance; ``score`` weighs them as one number, lower is better."""
        styles = {s: (style_vector(eye(x)), autocovariances(x)) for s, x in self.styles.items()}
        rows = []
        for c, s in self.rows:
            taps = self._see(paint(generator, self.contents[c], *styles[s]))
            content = content_loss(taps[3], self.content_taps[c][1].float())
            structure = structure_loss(taps[2], self.content_taps[c][0].float())
            rows.append((float(content), float(structure), float(style_distance(taps, self.style_moments[s]))))
        content, structure, style = (float(v) for v in np.mean(rows, axis=0))
        return {"content": content, "structure": structure, "style": style, "score": style + 0.5 * (content + structure)}
