"""Training pictures: tar files of WebP decoded once into memory, random crops out of them.

All randomness comes from a CPU ``torch.Generator`` that is handed in, so a seed gives the same crops on every device.
"""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from scumble.errors import InputError

HELD_OUT_EVERY = 25
PICTURE_SUFFIXES = (".webp", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def read_pictures(source: Path, *, held_out: bool = False, limit: int | None = None) -> list[Tensor]:
    """Pictures of a tar file or a folder as uint8 tensors (3, H, W), upright, in name order.

    One in ``HELD_OUT_EVERY`` is kept out of training; ``held_out`` returns those instead of the others.
    """
    if not source.exists():
        raise InputError(f"no training pictures at {source}; give a folder or a tar file of pictures")
    pictures: list[Tensor] = []
    index = -1
    for index, (name, data) in enumerate(_members(source)):
        if (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) != held_out:
            continue
        try:
            with Image.open(io.BytesIO(data)) as im:
                array = np.asarray(ImageOps.exif_transpose(im).convert("RGB"))
        except MemoryError:
            raise
        except Exception as error:  # decoders meet a damaged file with any of a dozen
            raise InputError(f"{name} is damaged or not a picture; get a whole copy of it or take it out") from error
        pictures.append(torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous())
        if limit is not None and len(pictures) >= limit:
            break
    if not pictures and index >= 0:
        raise InputError(
            f"{source} holds {index + 1} of {HELD_OUT_EVERY} pictures that are needed: the last of so many is kept to validate on"
        )
    if not pictures:
        raise InputError(f"{source} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    return pictures


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """What messages call it, and the content of each file."""
    if source.is_dir():
        for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES):
            yield str(path), path.read_bytes()
        return
    try:
        with tarfile.open(source) as tar:
            for member in sorted((m for m in tar if m.isfile()), key=lambda m: PurePosixPath(m.name)):  # as in a folder
                file = tar.extractfile(member) if member.name.lower().endswith(PICTURE_SUFFIXES) else None
                if file is not None:
                    yield f"{member.name} in {source}", file.read()
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{source} is damaged or not a tar file; give a folder or a tar file of pictures") from error


class Crops:
    """Random square crops of random scale, flipped half of the time, from pictures held on ``device``."""

    def __init__(self, pictures: Sequence[Tensor], device: str | torch.device = "cpu") -> None:
        self.pictures = [p.to(device) for p in pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, n: int, size: int, rng: torch.Generator, *, zoom: tuple[float, float] = (1.0, 2.0)) -> Tensor:
        """``n`` crops, (n, 3, size, size), RGB in [0, 1].

        Each is cut from a window of ``size * zoom`` pixels (as far as the picture reaches) and reduced to ``size``.
        """
        crops = [self._one(self.pictures[int(torch.randint(len(self.pictures), (), generator=rng))], size, rng, zoom) for _ in range(n)]
        return torch.stack(crops)

    def _one(self, picture: Tensor, size: int, rng: torch.Generator, zoom: tuple[float, float]) -> Tensor:
        u = torch.rand(4, generator=rng).tolist()
        _, h, w = picture.shape
        side = min(round(size * (zoom[0] + (zoom[1] - zoom[0]) * u[0])), h, w)
        y, x = int(u[1] * (h - side + 1)), int(u[2] * (w - side + 1))
        crop = picture[:, y : y + side, x : x + side].float().div_(255)
        if side != size:
            crop = F.interpolate(crop[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
        return crop.flip(2) if u[3] < 0.5 else crop


_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""Luminance and two chrominances of the NTSC."""


def recolored(x: Tensor, rng: torch.Generator, share: float = 0.6) -> Tensor:
    """``share`` of the pictures (N, 3, H, W) in [0, 1] with other hues, saturation, contrast and brightness: a few thousand paintings
    have few palettes, and a net that saw no others is worst at those.

    Hues turn around the grey axis of YIQ, half of them by any angle, half by at most 23 degrees; saturation is 0.5 to 1.5 of what it was,
    contrast 0.75 to 1.25, brightness moves by up to 0.1.
    """
    u = torch.rand(len(x), 7, generator=rng)
    angle = torch.where(u[:, 2] < 0.5, u[:, 1] * 2 * math.pi, (u[:, 1] - 0.5) * 0.8)
    saturation, zero = 0.5 + u[:, 3], torch.zeros(len(x))
    cosine, sine = saturation * angle.cos(), saturation * angle.sin()
    turn = torch.stack([torch.ones(len(x)), zero, zero, zero, cosine, -sine, zero, sine, cosine], 1).reshape(-1, 3, 3)
    turned = torch.einsum("nij,njhw->nihw", (_YIQ.inverse() @ turn @ _YIQ).to(x.device), x)
    contrast, brightness = (0.75 + 0.5 * u[:, 4]).to(x.device), ((u[:, 5] - 0.5) * 0.2).to(x.device)
    mean = turned.mean((1, 2, 3), keepdim=True)
    changed = ((turned - mean) * contrast[:, None, None, None] + mean + brightness[:, None, None, None]).clamp(0, 1)
    return torch.where((u[:, 6] < share).to(x.device)[:, None, None, None], changed, x)
