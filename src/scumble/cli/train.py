"""The verbs ``train eye | sight | decoder | cascade | generator | library``: options in, checkpoints and weight files out."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scumble.cli.commands import HelpfulGroup, defaults_from
from scumble.errors import InputError, MissingExtraError, UsageError, unknown

if TYPE_CHECKING:
    from scumble.nets.decoder import Decoder
    from scumble.nets.eye import Eye

app = typer.Typer(cls=HelpfulGroup, help="Train the nets anew (needs PyTorch). Interrupted, the same command goes on where it was.")

Pack = Annotated[
    Path,
    typer.Option(metavar="FOLDER", help="Training pictures: content.tar, style.tar and style_small.tar, or folders.", show_default=False),
]
Teacher = Annotated[Path, typer.Option(metavar="FOLDER", help="The VGG-19 files to learn from.", show_default=False)]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Checkpoints and logs; what is there is gone on with.", show_default=False)]
Steps = Annotated[int | None, typer.Option(metavar="N", min=1, help="Over which the learning rate falls.")]
LearningRate = Annotated[float | None, typer.Option(metavar="N", min=0.0, max=1.0, help="Of Adam, at its highest.")]
Minutes = Annotated[float | None, typer.Option(metavar="N", min=0.01, help="Stop, with a checkpoint, after so long.")]
Batch = Annotated[int | None, typer.Option(metavar="N", min=1, help="Pictures a step.")]
Size = Annotated[int | None, typer.Option(metavar="N", min=32, help="Side of the square crops in pixels.")]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Of all that is drawn at random.")]
Judging = Annotated[
    str | None,
    typer.Option(metavar="eye|sight|distilled|teacher", help="Whose features the losses are measured in: best distilled, then teacher."),
]
JudgesFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The VGG-19 files: for judges but the eye, and for --pairs.", show_default=False)
]
ContentTarget = Annotated[float | None, typer.Option(metavar="N", min=0.0, max=10.0, help="The content distance to hold.")]
StyleSize = Annotated[int | None, typer.Option(metavar="N", min=32, help="Side of the crops that styles are measured on.")]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps.")]
BFloat16 = Annotated[
    bool, typer.Option("--bfloat16", help="Run the nets in bfloat16: a third less time on GPUs and on processors that have it.")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write the trained weights and the manifest there; nets to build on are taken from there, too, or from the installation.",
        show_default=False,
    ),
]


@app.command("eye", cls=defaults_from("scumble.train.eye:RECIPE", "scumble.train.eye:train_eye"))
def train_eye(
    *,
    pack: Pack,
    teacher: Teacher,
    out: Out,
    cache: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Compute so many crops' targets once and keep them: for slow machines with much memory."),
    ] = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    batch: Batch = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    bfloat16: BFloat16 = False,
    weights: Weights = None,
) -> None:
    """Distil the eye from VGG-19."""
    _begin(out, weights)
    from scumble.train import export
    from scumble.train.eye import RECIPE, train_eye

    more = _given(cache=cache, size=size, batch=batch, device=device, bfloat16=bfloat16)
    pupil = train_eye(pack, teacher, out, _recipe(RECIPE, steps, learning_rate, minutes, seed), **more)
    if weights is not None:
        export.export_eye(pupil.eye, _made(weights))
        _write_manifest(weights, ("eye",), _origin(out))


@app.command("sight", cls=defaults_from("scumble.train.sight:RECIPE", "scumble.train.sight:train_sight"))
def train_sight(
    *,
    pack: Pack,
    teacher: Teacher,
    out: Out,
    go_on: Annotated[bool, typer.Option("--go-on", help="Begin with the sight of --weights.")] = False,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    batch: Batch = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    bfloat16: BFloat16 = False,
    weights: Weights = None,
) -> None:
    """Distil what completes the eye, which stays as it is, to VGG-19: refinement and tuning judge by it."""
    _begin(out, weights)
    from scumble.nets.sight import load_sight
    from scumble.train import export
    from scumble.train.sight import RECIPE, train_sight

    more = _given(size=size, batch=batch, device=device, bfloat16=bfloat16)
    if go_on:
        more["start"] = load_sight(weights=_weights_at(weights, "sight.safetensors"), eye=_weights_at(weights, "eye.safetensors"))
    sight = train_sight(pack, teacher, _eye(weights), out, _recipe(RECIPE, steps, learning_rate, minutes, seed), **more)
    if weights is not None:
        export.export_sight(sight, _made(weights))
        _write_manifest(weights, ("sight",), _origin(out))


@app.command("decoder", cls=defaults_from("scumble.train.decoder:RECIPE", "scumble.train.decoder:train_decoder"))
def train_decoder(
    *,
    pack: Pack,
    out: Out,
    level: Annotated[int | None, typer.Option(metavar="1..5", help="Train this block alone. Default: all of them.")] = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    batch: Batch = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    weights: Weights = None,
) -> None:
    """Train the decoders: each block to undo one of the eye's."""
    if level is not None and not 1 <= level <= 5:
        raise UsageError(f"level must be between 1 and 5; got {level}")
    _begin(out, weights)
    from scumble.train.decoder import RECIPE, train_decoder

    start = _decoder(weights) if level is not None else None
    more = _given(size=size, batch=batch, device=device)
    decoder = train_decoder(
        pack, _eye(weights), out, _recipe(RECIPE, steps, learning_rate, minutes, seed), level=level, start=start, **more
    )
    _write_decoder(decoder, weights, out)


@app.command("cascade", cls=defaults_from("scumble.train.decoder:CASCADE", "scumble.train.decoder:train_cascade"))
def train_cascade(
    *,
    pack: Pack,
    out: Out,
    judge: Judging = None,
    teacher: JudgesFolder = None,
    content_target: ContentTarget = None,
    style_size: StyleSize = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    batch: Batch = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    bfloat16: BFloat16 = False,
    weights: Weights = None,
) -> None:
    """Train the decoders of --weights on as a chain, fused with styles at every level: judged by what it paints."""
    _check_judge(judge, teacher)
    _begin(out, weights)
    from scumble.train.decoder import CASCADE, train_cascade

    more = _given(judge=judge, size=size, batch=batch, style_size=style_size, content_target=content_target, device=device)
    decoder = train_cascade(
        pack,
        _eye(weights),
        _decoder(weights),
        out,
        _recipe(CASCADE, steps, learning_rate, minutes, seed),
        teacher_folder=teacher,
        bfloat16=bfloat16,
        **more,
    )
    _write_decoder(decoder, weights, out)


@app.command("generator", cls=defaults_from("scumble.train.generator:RECIPE", "scumble.train.generator:train_generator"))
def train_generator(
    *,
    pack: Pack,
    out: Out,
    judge: Judging = None,
    teacher: JudgesFolder = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Validate on pairs (columns content, style: names of JPEGs in dev/content and dev/style beside the table); keep the best.",
            show_default=False,
        ),
    ] = None,
    go_on: Annotated[bool, typer.Option("--go-on", help="Start from the generator of --weights (or the installed one).")] = False,
    only_beyond: Annotated[bool, typer.Option("--only-beyond", help="Train strengths above 1 and leave the rest as it is.")] = False,
    only_look: Annotated[
        bool, typer.Option("--only-look", help="Train how a second painting mends the first, and leave the rest as it is.")
    ] = False,
    with_look: Annotated[bool, typer.Option("--with-look", help="Train second paintings along with first ones.")] = False,
    content_target: ContentTarget = None,
    cache: Annotated[int | None, typer.Option(metavar="N", min=0, help="See so many style crops once and keep their statistics.")] = None,
    style_size: StyleSize = None,
    works: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Further style pictures, larger than the pack's.", show_default=False)
    ] = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    batch: Batch = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    bfloat16: BFloat16 = False,
    weights: Weights = None,
) -> None:
    """Train the generator: any style in one pass."""
    _check_judge(judge, teacher, validated=pairs is not None)
    if teacher is None and pairs is not None:
        raise UsageError("--pairs needs --teacher FOLDER")
    _begin(out, weights)
    from scumble.engine import FINISH
    from scumble.train import export
    from scumble.train.generator import RECIPE, train_generator

    eye = _eye(weights)
    more = _given(judge=judge, size=size, batch=batch, device=device, content_target=content_target, cache=cache, bfloat16=bfloat16)
    more |= _given(style_size=style_size, works=works, only_beyond=only_beyond, only_look=only_look, with_look=with_look)
    if go_on:
        more |= {"start": export.load_generator(_weights_at(weights, "generator.safetensors")), "warm_steps": 0}
    if pairs is not None and teacher is not None:
        from scumble.train.settings import on_device
        from scumble.train.teacher import Teacher
        from scumble.train.validation import Pairs

        on_device(device or "cpu")
        more["validate"] = Pairs(pairs, Teacher(teacher).to(device or "cpu")).validate
    generator = train_generator(pack, eye, out, _recipe(RECIPE, steps, learning_rate, minutes, seed), teacher_folder=teacher, **more)
    if weights is not None:
        export.export_generator(generator, _made(weights))
        _write_manifest(weights, ("generator", "modulator", *FINISH), _origin(out))


@app.command("library", cls=defaults_from("scumble.train.tuning:RECIPE", "scumble.train.tuning:tune", "scumble.train.library:tune_works"))
def train_library(
    gallery: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Pictures and their gallery.csv (name, title, artist, ..., crop).", show_default=False)
    ],
    *,
    weights: Annotated[Path, typer.Option(metavar="FOLDER", help="Write the library and the manifest there.", show_default=False)],
    tuned: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Tunings that go with the styles; with --pack, those that it lacks are made.", show_default=False
        ),
    ] = None,
    pack: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Tune, on the photographs of its content.tar (or folder of that name).", show_default=False),
    ] = None,
    begin: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Go on from the tunings there instead of anew.", exists=True, file_okay=False, show_default=False
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A generator's weights: go on from the tunings that are for them, with fewer --steps.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    judge: Judging = None,
    teacher: JudgesFolder = None,
    content_weight: Annotated[
        float | None, typer.Option(metavar="N", min=0.0, max=100.0, help="What the content weighs in tuning.")
    ] = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    batch: Batch = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    bfloat16: BFloat16 = False,
) -> None:
    """Measure the built-in styles with the eye, and tune the generator to them."""
    _check_judge(judge, teacher)
    if pack is not None and tuned is None:
        raise UsageError("--pack is what tunings are made from; say with --tuned FOLDER where they go")
    if pack is None and (earlier or begin) is not None:
        raise UsageError("--begin and --earlier say what tuning goes on from, and that needs --pack FOLDER")
    if pack is None and teacher is not None:
        raise UsageError("--teacher judges tunings; they need --pack FOLDER to be made from, too")
    _check_installed(weights)
    _begin(weights)
    from scumble.train.library import build_library, tune_works
    from scumble.train.tuning import RECIPE

    if pack is not None and tuned is not None:
        more = _given(judge=judge, size=size, batch=batch, device=device, begin=begin, earlier=earlier, content_weight=content_weight)
        done = tune_works(
            gallery, tuned, pack, _recipe(RECIPE, steps, learning_rate, minutes, seed), teacher=teacher, bfloat16=bfloat16, **more
        )
        typer.echo(f"{done} tuned")
    typer.echo(f"{build_library(gallery, _made(weights), tuned=tuned)} styles")
    _write_manifest(weights, ("library",), _OF_THE_LIBRARY)


def _check_installed(weights: Path) -> None:
    """Styles are measured and tuned by the nets that are installed: InputError for others in ``weights``, which it would not fit."""
    from scumble.weights import FOLDER, sha256, weight_path

    for name in ("eye.safetensors", "generator.safetensors"):
        if (weights / name).is_file() and sha256(weights / name) != sha256(weight_path(name)):
            raise InputError(
                f"{weights / name} is not the net that is installed, and styles are measured and tuned by that;"
                f" copy what {weights} holds to {FOLDER} first, or write the library to another folder"
            )


_OF_THE_LIBRARY = (
    "statistics of works in the public domain, measured by the eye, and what the generator was tuned to them by: scumble train library"
)

_JUDGES = ("eye", "sight", "distilled", "teacher")
"""As in :mod:`scumble.train.judge`, which imports PyTorch."""


def _check_judge(judge: str | None, teacher: Path | None, *, validated: bool = False) -> None:
    if judge not in (None, *_JUDGES):
        raise UsageError(unknown("judge", judge, _JUDGES))
    if teacher is None and judge in ("distilled", "teacher"):
        raise UsageError("--judge distilled and --judge teacher need --teacher FOLDER")
    if teacher is not None and judge not in ("distilled", "teacher") and not validated:
        raise UsageError(f"--teacher is for the judges distilled and teacher, and the judge is {judge or 'eye'}; add --judge distilled")


def _begin(*folders: Path | None) -> None:
    """What training needs is here, the folders that it writes to as well, and its log goes to stderr."""
    try:
        for module in ("torch", "onnx"):
            import_module(module)
    except ImportError as error:
        raise MissingExtraError(f'training needs PyTorch and ONNX ({error}): pip install "scumble[torch]"') from error
    log = logging.getLogger("scumble")
    log.setLevel(min(logging.INFO, log.getEffectiveLevel()))
    for folder in folders:
        if folder is not None:
            _check_folder(folder)


def _recipe(recipe: Any, steps: int | None, learning_rate: float | None, minutes: float | None, seed: int | None) -> Any:
    return replace(recipe, **_given(steps=steps, learning_rate=learning_rate, minutes=minutes, seed=seed))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _decoder(weights: Path | None) -> Decoder:
    """As it stands in ``weights``, or in the installation."""
    from scumble.nets.decoder import Decoder
    from scumble.nets.vgg import read_weights

    decoder, path = Decoder(), _weights_at(weights, "decoder.safetensors")
    wanted = decoder.state_dict()
    found = read_weights(path, wanted)
    if any(k not in found or found[k].shape != v.shape for k, v in wanted.items()):
        raise InputError(f"{path} does not hold the decoders' weights; train them with scumble train decoder")
    decoder.load_state_dict(dict(found))
    return decoder


def _write_decoder(decoder: Decoder, weights: Path | None, out: Path) -> None:
    from scumble.train import export

    if weights is not None:
        export.export_decoder(decoder, _made(weights))
        _write_manifest(weights, ("decoder",), _origin(out))


def _check_folder(folder: Path) -> None:
    """InputError if nothing can be written there: before the training, which takes hours, and without making it."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written to" if there.is_dir() else "is a file"
        raise InputError(f"nothing can be written to the folder {folder}: {there} {why}; give another one")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _origin(out: Path) -> str:
    return f"scumble train, {out.resolve().name}"


def _weights_at(folder: Path | None, name: str) -> Path:
    from scumble.weights import weight_path

    return folder / name if folder is not None and (folder / name).is_file() else weight_path(name)


def _eye(folder: Path | None) -> Eye:
    from scumble.nets.eye import Eye
    from scumble.nets.vgg import load_encoder

    eye = load_encoder("eye", weights=_weights_at(folder, "eye.safetensors"))
    assert isinstance(eye, Eye)
    return eye


def _write_manifest(folder: Path, trained: tuple[str, ...], origin: str) -> None:
    """The manifest of ``folder``: the ``origin`` of what was just trained, and of the rest what was known."""
    from scumble.train.export import write_manifest
    from scumble.weights import tomllib

    try:
        known = tomllib.loads((folder / "manifest.toml").read_text("utf-8"))
    except FileNotFoundError:
        known = {}
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{folder / 'manifest.toml'} is damaged ({error}); remove it") from error
    origins = {p.stem.rstrip("0123456789"): "unknown" for p in folder.iterdir()}
    for name, entry in known.items():
        if not isinstance(entry, dict) or not isinstance(origin_before := entry.get("origin"), str):
            raise InputError(f"{folder / 'manifest.toml'} is damaged ({name} has no origin); remove it")
        origins[Path(name).stem.rstrip("0123456789")] = origin_before
    write_manifest(origins | dict.fromkeys(trained, origin), folder)
