"""A Style: what an artwork teaches, as numbers.

It is the eye's statistics of one or more pictures: mean and covariance of the features at relu1_1 … relu5_1. Encode once,
apply to as many pictures as you like.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scumble import finish, library
from scumble._files import checked_target, is_there, reason, write_whole
from scumble.errors import InputError, ScumbleError, UsageError, in_range, must_be
from scumble.fusion import Moments, barycenter, mixture, moments
from scumble.picture import DEFAULT_MAX_PIXELS, SUFFIXES, Picture, read_recipe

if TYPE_CHECKING:
    from scumble.engine import Engine

log = logging.getLogger(__name__)

REFERENCE = 720
"""Styles are measured at the size of a square with sides of this many pixels (smaller pictures at their own): the brush of a
style has the same width whichever file it came from."""
SPUN = 0.085
"""Strength above 1 that makes up for what the mean of several phases (:meth:`~scumble.engine.Engine.unfinished`) lacks of a style. 24
pairs (content, structure, style): 0.433, 0.277, 0.528 at 0, 0.457, 0.292, 0.518 at 0.07, 0.461, 0.295, 0.516 at 0.085; 0.466, 0.290,
0.514 painted at one phase. All with windows of 9 x 9 in :mod:`scumble.guided`, where there are 11 x 11 now."""
A_STYLE = "a style must be a name, a path (of a picture, a folder, a .style file), a Picture, a Style or a blend such as 0.7 * a + 0.3 * b"
"""What messages say is allowed where something can be none."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a generator learnt for one style beyond what it predicts from the statistics; see :mod:`scumble.train.tuning`."""

    offset: NDArray[np.float16]
    """(T,): see :meth:`scumble.engine.Engine.modulation`."""
    generator: str
    """The weights that it was learnt with: :attr:`scumble.engine.Engine.generator_id`."""


@dataclass(frozen=True, eq=False, repr=False)
class Style:
    """Statistics of the eye's features: five :class:`~scumble.fusion.Moments`, fine to coarse."""

    levels: tuple[Moments, ...]
    name: str = ""
    about: dict[str, str] = field(default_factory=dict)
    """Title, artist, year and whatever else is known."""
    tuning: Tuning | None = None
    texture: NDArray[np.float32] | None = None
    """What the finish gives a painting, (T,): see :mod:`scumble.finish`. None: there is none, the painting stays as the net has it."""

    def __repr__(self) -> str:
        numbers = sum(2 * level.channels for level in self.levels)
        tuned, texture = "untuned" if self.tuning is None else "tuned", "no texture" if self.texture is None else "texture"
        return f"Style({self.name!r}, {numbers} statistics, {tuned}, {texture})"

    @staticmethod
    def from_image(
        source: str | os.PathLike[str] | bytes | Picture,
        *,
        name: str = "",
        engine: Engine | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Style:
        """The style of one picture (a file, its bytes, or a Picture); InputError if it can't be read, or has more than ``max_pixels``."""
        picture = source if isinstance(source, Picture) else Picture.open(source, max_pixels=max_pixels)
        if not name and isinstance(source, (str, os.PathLike)):
            name = Path(source).stem
        return replace(Style.of_pixels(at_reference(picture).pixels, _engine(engine)), name=name)

    @staticmethod
    def of_pixels(pixels: NDArray[np.float32], engine: Engine) -> Style:
        """Of (H, W, 3) in [0, 1] as they are, nameless: what a content would be as a style."""
        return Style(tuple(moments(t) for t in engine.eye(pixels)), texture=finish.texture(pixels))

    @staticmethod
    def from_folder(folder: str | os.PathLike[str], *, engine: Engine | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Style:
        """A painter's manner: the statistics of all pictures in a folder but those Scumble painted, poured together with equal weight.

        Pooling is a mixture (:func:`~scumble.fusion.mixture`): whatever colours and strokes occur in any of the works stay possible.
        """
        must_be("a folder of pictures must be a path", folder, str, os.PathLike)
        return Style.from_pictures(works_in(Path(folder)), name=Path(folder).resolve().name, engine=engine, max_pixels=max_pixels)

    @staticmethod
    def from_pictures(
        sources: Sequence[str | os.PathLike[str] | Picture],
        *,
        name: str = "",
        engine: Engine | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Style:
        """As :meth:`from_folder`, of pictures wherever they are; UsageError if there are none."""
        must_be("a style's pictures must be a list of paths or Pictures", sources, Sequence)
        if isinstance(sources, (str, bytes)):  # of which each letter would be taken for a path
            raise UsageError("a style's pictures must be a list of paths or Pictures; got a single one, for Style.from_image")
        if not sources:
            raise UsageError("a style needs one picture at least; got none")
        shared = _engine(engine)
        return Style.pooled([Style.from_image(source, engine=shared, max_pixels=max_pixels) for source in sources], name)

    @staticmethod
    def pooled(works: Sequence[Style], name: str = "") -> Style:
        """The mixture of ``works``, one at least, with equal weight; it has no tuning, even if all of them have."""
        textures = [w.texture for w in works if w.texture is not None]
        pooled = tuple(mixture([w.levels[k] for w in works], [1.0] * len(works)) for k in range(5))
        return Style(pooled, name, texture=finish.mixed(textures, [1.0] * len(textures)) if textures else None)

    @staticmethod
    def named(name: str) -> Style:
        """A style of the library; UsageError with a suggestion if there is none of that name."""
        found = library.entry(name)
        if found.path is not None:
            return replace(Style.load(found.path), name=found.name)
        about = {k: getattr(found, k) for k in ("title", "artist", "year", "medium", "group") if getattr(found, k)}
        tensors, generator = library.tensors(found.name)
        return Style(_unpack(tensors), found.name, about, _tuning(tensors, generator), _texture(tensors))

    @staticmethod
    def open(source: str | os.PathLike[str], *, engine: Engine | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Style:
        """Whatever ``source`` is: a name of the library, a ``.style`` file, a picture or a folder of pictures.

        Names come first: what a name means must not depend on the folder one stands in. ``./name`` is a path in any case.
        """
        must_be(A_STYLE, source, str, os.PathLike)
        path = Path(source)
        if not os.fspath(source):  # as a path that is the current folder, which nobody means by an empty variable
            raise UsageError("a style must be a name, a picture, a folder or a .style file; got an empty text")
        if is_name(source):
            return Style.named(os.fspath(source))
        if path.suffix == ".style":
            return Style.load(path)
        if is_there(path) and path.is_dir():
            return Style.from_folder(path, engine=engine, max_pixels=max_pixels)
        return Style.from_image(path, engine=engine, max_pixels=max_pixels)

    @property
    def vector(self) -> NDArray[np.float32]:
        """Mean and standard deviation of every channel, level by level: (736,), what the generator is steered by."""
        return _vector((m.mean, m.std) for m in self.levels)

    @property
    def digest(self) -> str:
        """Names all that decides what is painted, the name aside."""
        whole = hashlib.blake2b(digest_size=16)
        for level in self.levels:
            whole.update(level.mean.tobytes())
            whole.update(level.covariance.tobytes())
        if self.tuning is not None:
            whole.update(self.tuning.generator.encode() + self.tuning.offset.tobytes())
        if self.texture is not None:
            whole.update(self.texture.tobytes())
        return whole.hexdigest()

    def modulation(
        self, engine: Engine, strength: float = 1.0, missed: NDArray[np.float32] | None = None, *, wide: bool = False
    ) -> NDArray[np.float32]:
        """What the style sets in the generator (M,): predicted from its statistics, and what it was tuned by; then its texture (T,).

        The texture is that of the larger patches where it is to be ``wide``: painted and finished better, in several times the time. The
        net is then asked for :data:`SPUN` more.

        From 1 to 2 it depends on the ``strength``, and is all that does; below 1 it is that of 1, to be mixed with the content's own.
        ``missed`` (736,) is what :meth:`missed_in` found. A tuning for other weights than the ``engine`` has is left out, with one warning.
        """
        offset, beyond = None, max(0.0, strength - 1.0)
        if wide and self.texture is not None and finish.is_wide(self.texture):
            beyond = SPUN + (1 - SPUN) * beyond
        if self.tuning is not None and self.tuning.generator == engine.generator_id:
            offset = self.tuning.offset.astype(np.float32)
        elif self.tuning is not None:
            _say_stale(self.name or "given")
        net = engine.modulation(self.vector, offset, beyond, missed)
        return net if self.texture is None else np.concatenate([net, self.texture if wide else finish.narrow(self.texture)])

    def missed_in(self, pixels: NDArray[np.float32], engine: Engine) -> NDArray[np.float32]:
        """By how much (H, W, 3) in [0, 1], painted in one pass, falls short of :attr:`vector` (736,): what a second pass can mend.

        The style alone does not say how it will come out on a picture: a sky keeps less of it than a market. A step back to look is what
        an optimiser does all the time; how far to go for what is missing the net has learnt (``look`` in :mod:`scumble.nets.generator`).
        """
        painted = engine.paint(pixels, self.modulation(engine))[0]
        return self.vector - _vector((t.mean((1, 2)), t.std((1, 2))) for t in engine.eye(painted))

    def __mul__(self, weight: float) -> Blend:
        return Blend(((1.0, self),)) * weight

    __rmul__ = __mul__

    def __add__(self, other: Style | Blend) -> Blend:
        return 1.0 * self + other

    def __radd__(self, other: int) -> Blend:
        return other + 1.0 * self

    def blended(self) -> Style:
        """Itself; see :meth:`Blend.blended`."""
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a ``.style`` file (safetensors, about 90 KB, tuned 100): exact to float32."""
        from safetensors.numpy import save

        must_be("a style is saved under a path", path, str, os.PathLike)
        path = Path(path)
        if path.suffix != ".style":
            raise UsageError(f"a style is saved in a file that ends in .style; got {path.name!r}")
        try:
            about = json.dumps(self.about, allow_nan=False)
        except (TypeError, ValueError) as e:
            raise UsageError(f"what is known of a style must be texts by name, as JSON has them ({e})") from e
        metadata = {"format": "scumble-style-1", "name": self.name, "about": about}
        tensors = pack(self.levels, np.float32)
        if self.tuning is not None:
            tensors["tuning"] = self.tuning.offset
            metadata["generator"] = self.tuning.generator
        if self.texture is not None:
            tensors["texture"] = self.texture
        write_whole(checked_target(path, overwrite=overwrite), save(tensors, metadata), overwrite=overwrite)
        return path

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Style:
        """Read a ``.style`` file; InputError if it is missing or not one."""
        from safetensors import SafetensorError, safe_open

        must_be("a style file must be a path", path, str, os.PathLike)
        path = Path(path)
        if not is_there(path) or not path.is_file():
            raise InputError(f"there is no style file {path}; make one with `scumble styles add`, or give a picture or a name")
        try:
            with safe_open(os.fspath(path), framework="np") as f:
                metadata = f.metadata() or {}
                tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118  (not a dict)
            if metadata.get("format") != "scumble-style-1":
                raise InputError(f"{path} is not a style file of this version; make it again with `scumble styles add`")
            tuning = _tuning(tensors, metadata.get("generator", ""))
            _check_numbers(tensors)
            about = json.loads(metadata["about"])
            if not isinstance(about, dict):
                raise ValueError("what is known of a style stands by name")
            return Style(_unpack(tensors), metadata["name"], about, tuning, _texture(tensors))
        except (SafetensorError, KeyError, ValueError, OSError) as e:
            raise InputError(f"{path} is not a style file, or it is damaged; make it again with `scumble styles add`") from e


@dataclass(frozen=True, eq=False)
class Blend:
    """A weighted sum of styles that is still being written down: ``0.7 * wave + 0.3 * night``; UsageError for a negative weight."""

    terms: tuple[tuple[float, Style], ...]

    def __post_init__(self) -> None:
        for weight, _ in self.terms:
            in_range("the weight of a style", weight, 0.0, 1e6)

    def __add__(self, other: Style | Blend) -> Blend:
        terms = _terms(other)
        return NotImplemented if terms is None else Blend(self.terms + terms)

    def __radd__(self, other: int) -> Blend:
        return self if other == 0 else NotImplemented  # sum() begins with 0

    def __mul__(self, weight: float) -> Blend:
        return Blend(tuple((w * float(weight), s) for w, s in self.terms)) if isinstance(weight, Real) else NotImplemented

    __rmul__ = __mul__

    def blended(self, *, quick: bool = False) -> Style:
        """One Style half-way between: at every level the Wasserstein barycentre of the Gaussians.

        A plain mixture would be wider than any of its parts (two palettes side by side, all contrasts at once); the barycentre is
        as sharp as they are. Weights are scaled to sum to 1; UsageError if all are 0.

        ``quick`` takes where the barycentre's iteration begins, which is its answer when covariances commute: what is painted with it
        differed by 0.1 to 0.5 of 255 steps on average (512 × 512 pixels; three pairs of styles and a blend of three), where the styles
        themselves lie 35 to 95 apart. The iteration takes half a second, too long for a slider.
        """
        weights = [w for w, _ in self.terms]
        if sum(weights) <= 0:
            raise UsageError("the weights of a blend must not all be 0")
        styles = [s for _, s in self.terms]
        total = sum(weights)
        name = "+".join(f"{w / total:.3g}*{s.name or 'style'}" for w, s in self.terms)
        levels = tuple(barycenter([s.levels[k] for s in styles], weights, quick=quick) for k in range(5))
        textured = [(w, s.texture) for w, s in self.terms if s.texture is not None and w > 0]
        texture = finish.between([t for _, t in textured], [w for w, _ in textured], quick=quick) if textured else None
        return Style(levels, name, tuning=blended_tuning(self.terms), texture=texture)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Blend, and write that: see :meth:`blended` and :meth:`Style.save`."""
        return self.blended().save(path, overwrite=overwrite)


def _terms(summand: object) -> tuple[tuple[float, Style], ...] | None:
    """None for what is neither a style nor a blend."""
    if isinstance(summand, Style):
        return ((1.0, summand),)
    return summand.terms if isinstance(summand, Blend) else None


def blended_tuning(terms: Sequence[tuple[float, Style]]) -> Tuning | None:
    """The weighted mean of what styles were tuned by, those that were not counting as 0.

    None where none was. If not all were for one generator, only those count whose generator has the most weight.
    """
    tuned = [(weight, style.tuning) for weight, style in terms if style.tuning is not None and weight > 0]
    if not tuned:
        return None
    generator = max((t.generator for _, t in tuned), key=lambda g: sum(weight for weight, t in tuned if t.generator == g))
    total = sum(weight for weight, _ in terms)
    shares = [np.float32(weight / total) * t.offset.astype(np.float32) for weight, t in tuned if t.generator == generator]
    return Tuning(np.sum(shares, axis=0).astype(np.float16), generator)


def _vector(levels: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> NDArray[np.float32]:
    return np.concatenate([part for mean_and_std in levels for part in mean_and_std]).astype(np.float32)


def toward(modulation: NDArray[np.float32], other: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """From one modulation towards another. Without a texture unless both have one, and of the smaller patches if either is."""
    wide = finish.texture_size(finish.WIDE)
    if abs(len(modulation) - len(other)) == wide - finish.texture_size(finish.NARROW):
        n = min(len(modulation), len(other))
        modulation, other = (m if len(m) == n else np.append(m[:-wide], finish.narrow(m[-wide:])) for m in (modulation, other))
    n = min(len(modulation), len(other))
    return modulation[:n] + np.float32(share) * (other[:n] - modulation[:n])


def at_reference(picture: Picture, shape: tuple[int, int] | None = None) -> Picture:
    """``picture`` reduced to the size at which styles are measured; smaller ones keep theirs.

    With a ``shape`` (H, W) its height and width come to that proportion, and its pixels to as many as they would have been.
    """
    height, width = shape or (picture.height, picture.width)
    side = min(REFERENCE, (picture.width * picture.height) ** 0.5)
    scale = side / (height * width) ** 0.5
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    return picture if (high, wide) == picture.size else picture.resized(width=wide, height=high)


def pack(levels: Sequence[Moments], precision: type[np.floating]) -> dict[str, NDArray[np.floating]]:
    """Means and deviations in float32, upper triangles of the correlations in ``precision``.

    Correlations lie in [-1, 1], where half precision resolves 5e-4 or better; covariances would not survive it.
    """
    tensors: dict[str, NDArray[np.floating]] = {}
    for k, m in enumerate(levels, 1):
        scale = np.maximum(m.std, 1e-12)
        correlation = m.covariance / np.outer(scale, scale)
        tensors[f"mean{k}"] = m.mean.astype(np.float32)
        tensors[f"std{k}"] = m.std.astype(np.float32)
        tensors[f"correlation{k}"] = correlation[np.triu_indices(m.channels, 1)].astype(precision)
    return tensors


def _check_numbers(tensors: dict[str, NDArray[np.floating]]) -> None:
    """ValueError for what can be no style's, and would be told from far inside of a painting."""
    from scumble.engine import WIDTHS

    for k, channels in enumerate(WIDTHS, 1):
        shapes = [tensors[f"{name}{k}"].shape for name in ("mean", "std", "correlation")]
        if shapes != [(channels,), (channels,), (channels * (channels - 1) // 2,)] or tensors[f"std{k}"].min() < 0:
            raise ValueError(f"level {k} is none of the eye's")
    if not all(np.isfinite(t).all() for t in tensors.values()) or tensors.get("tuning", np.empty(0)).ndim != 1:
        raise ValueError("a number is not finite, or the tuning is no vector")


def _unpack(tensors: dict[str, NDArray[np.floating]]) -> tuple[Moments, ...]:
    levels: list[Moments] = []
    for k in range(1, 6):
        mean, std = tensors[f"mean{k}"].astype(np.float64), tensors[f"std{k}"].astype(np.float64)
        correlation = np.eye(len(mean))
        upper = np.triu_indices(len(mean), 1)
        correlation[upper] = tensors[f"correlation{k}"]
        correlation.T[upper] = tensors[f"correlation{k}"]
        levels.append(Moments(mean, correlation * np.outer(std, std)))
    return tuple(levels)


def _texture(tensors: dict[str, NDArray[np.floating]]) -> NDArray[np.float32] | None:
    if "texture" not in tensors:
        return None
    finish.patch_of(tensors["texture"])  # a ValueError, if that is none
    return tensors["texture"].astype(np.float32)


def _tuning(tensors: dict[str, NDArray[np.floating]], generator: str) -> Tuning | None:
    return Tuning(tensors["tuning"].astype(np.float16), generator) if "tuning" in tensors else None


def is_name(source: str | os.PathLike[str]) -> bool:
    """Whether ``source`` is a name of the library, or can be nothing else because there is no such path."""
    path = Path(source)
    if isinstance(source, str) and path.name == source and not path.suffix and source in library.entries():
        return True
    return path.suffix != ".style" and path.suffix.lower() not in SUFFIXES and not is_there(path)


def works_in(folder: Path) -> list[Path]:
    """As :func:`pictures_in`, without those that Scumble has painted, if there are others: they are not meant, neither as works nor as
    photographs.
    """
    pictures = pictures_in(folder)
    return [p for p in pictures if not _is_painted(p)] or pictures


def _is_painted(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        read_recipe(path)
    except (ScumbleError, OSError):
        return False
    return True


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder, by name, without hidden ones; InputError if there are none, or no such folder."""
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} can't be read as a folder of pictures ({reason(error)}); check the path") from error
    if not paths:
        raise InputError(f"the folder {folder} holds no pictures ({', '.join(SUFFIXES)})")
    return paths


@lru_cache(maxsize=1024)
def _say_stale(name: str) -> None:
    """Once: a folder of photographs is painted with one style."""
    log.warning("the style %s was tuned for another generator: painted as if it were not; tune it again", name)


def _engine(engine: Engine | None) -> Engine:
    if engine is not None:
        return engine
    from scumble.engine import Engine

    return Engine()
