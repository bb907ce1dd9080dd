"""The verbs that paint pictures: ``stylize`` and ``replay``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scumble._files import reason
from scumble.cli.commands import defaults_from
from scumble.errors import InputError, UsageError

StylizeCommand = defaults_from(
    "scumble.mask:Mask.from_picture", "scumble.stylizer:stylize", "scumble.stylizer:Stylizer", "scumble.stylizer:Stylizer.__call__"
)


def parse_pixels(text: str | int) -> int:
    """``200M`` -> 200 000 000; K, M and G are thousands, millions and milliards."""
    number, factor = str(text).strip(), 1
    if number and number[-1].upper() in "KMG":
        factor = 1000 ** (1 + "KMG".index(number[-1].upper()))
        number = number[:-1]
    try:
        pixels = float(number) * factor
    except ValueError:
        pixels = 0.0
    if not 1 <= pixels < 1e18:  # also catches NaN
        raise typer.BadParameter(f"it must be a number such as 200M or 1.5G, at least 1; got {text!r}")
    return int(pixels)


def parse_memory(text: str | int) -> int:
    """``1GB`` -> 10^9 bytes; MB, MiB and GiB likewise."""
    from scumble.tiling import parse_bytes

    try:
        return parse_bytes(text)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def stylize(
    context: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Pictures, folders of pictures, or - for standard input.", show_default=False)
    ],
    *,
    style: Annotated[
        list[str] | None,
        typer.Option(
            "--style",
            "-s",
            metavar="STYLE",
            help="A name (see `scumble styles list`), a picture, a folder of pictures or a .style file; repeated: one for each mask.",
        ),
    ] = None,
    blend: Annotated[str | None, typer.Option(metavar="NAME=0.7,NAME=0.3", help="Several styles in one, in place of --style.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file; for several inputs a folder, its name ending in /; - for standard output. Default: beside each input.",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(metavar="0..2", help="0 is the input, 1 the style; above, the input counts for less.")
    ] = None,
    style_scale: Annotated[
        float | None,
        typer.Option(metavar="0.25..4", help="Width of the brush relative to the picture. Default: the brush's own, in pixels."),
    ] = None,
    style_fit: Annotated[
        str | None,
        typer.Option(metavar="own|stretch", help="The style's picture in its own shape, or stretched to that of the input first."),
    ] = None,
    keep_color: Annotated[float | None, typer.Option(metavar="0..1", help="How much of the input's colours stays.")] = None,
    keep_light: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="How far light and dark lie as in the input: for faces that a dark style loses."),
    ] = None,
    grain: Annotated[
        float | None, typer.Option(metavar="0..4", help="Strokes for what is flat: 1 as a photograph's noise makes them, 0 none.")
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(metavar="M.png", help="White is painted, black stays. Repeated: one for each style, or all with one style."),
    ] = None,
    feather: Annotated[float | None, typer.Option(metavar="PX", help="Soften the masks' edges by so many pixels of the input.")] = None,
    invert_mask: Annotated[bool, typer.Option("--invert-mask", help="Black is painted, white stays.")] = False,
    method: Annotated[
        str | None, typer.Option(metavar="METHOD", help="generator (one pass), or how features are fused: linear, adain, wct, ot.")
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="QUALITY",
            help="draft is one pass; good paints once more what that lacks of the style; fine and best then optimise the pixels (PyTorch).",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="How many steps of that optimisation, in place of --quality.")] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="NET", help="Whose features the optimisation sees: eye, vgg19, vgg16, vgg19:relu4_1")
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="The longer side of the result in pixels. Default: as the input.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, coreml or directml.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="For one picture. Default: all cores.")] = None,
    max_pixels: Annotated[int | None, typer.Option(metavar="N", parser=parse_pixels, help="Refuse larger pictures; 500M, 2G.")] = None,
    detail: Annotated[
        str | None,
        typer.Option(
            metavar="content|painted",
            help="What a large picture shows that is finer than its brush: the input's own detail, or that painted, too."
            " Default: content, and painted above 64 megapixels.",
        ),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(metavar="thumbnail|exact", help="For tiles: the statistics of the reduced picture, or of the full one (many passes)."),
    ] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="1GB", parser=parse_memory, help="A budget: larger pictures are painted in tiles.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a large picture where an interrupted run stopped.")] = False,
    preview: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the optimisation's latest state in this picture.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each input.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Paint pictures in the manner of a style, as in: scumble stylize photo.jpg --style great-wave -o painted.jpg

    Several inputs: those that fail are listed at the end, the others are painted. Ctrl-C during an optimisation writes the best so far.
    """
    from scumble._files import checked_target
    from scumble.cli.jobs import STDIO, Session, plan
    from scumble.recipe import Request, parse_blend

    if bool(style) == bool(blend):
        raise UsageError("give a style with --style, or several in one with --blend" + (", not both" if style else ""))
    styles = tuple(((1.0, source),) for source in style) if style else (parse_blend(blend or ""),)
    masks = tuple(os.fspath(m) for m in mask or ())
    settings: dict[str, Any] = {
        "strength": strength, "method": method, "style_scale": style_scale, "style_fit": style_fit, "keep_color": keep_color,
        "keep_light": keep_light, "grain": grain, "quality": quality, "steps": steps, "encoder": encoder, "size": size, "feather": feather,
        "invert_mask": invert_mask, "detail": detail, "statistics": statistics, "memory": memory,
        "device": device, "threads": threads, "max_pixels": max_pixels,
    }  # fmt: skip
    request = Request(styles, masks, settings)
    if len(styles) > 1 and len(styles) != len(masks):
        raise UsageError(f"several styles need a --mask each; got {len(styles)} times --style and {len(masks)} times --mask")
    if (feather or invert_mask) and not masks:
        raise UsageError("--feather and --invert-mask need a --mask")
    if preview is not None and not request.refines:
        raise UsageError("--preview is for an optimisation: add --quality fine, --quality best or --steps")
    if settings["encoder"] != "eye" and not request.refines:
        raise UsageError("--encoder is for an optimisation: add --quality fine, --quality best or --steps")
    if STDIO in (output, *(inputs if output is None else ())) and getattr(sys.stdout, "name", None) == os.devnull:
        raise UsageError("standard output is closed; give -o FILE")
    if as_json and STDIO in (output, *(inputs if output is None else ())):
        raise UsageError("a picture and --json can't both go to standard output; give -o FILE")
    jobs = plan(inputs, output, [source for terms in styles for _, source in terms])
    folder = Path(output) if output is not None and output.endswith(("/", os.sep)) else None
    if preview is not None:
        others = [*inputs, *masks, *(s for terms in styles for _, s in terms), *(job.source for job in jobs), *(job.target for job in jobs)]
        if preview.resolve() in {Path(other).resolve() for other in others}:
            raise UsageError(f"--preview would be written over {preview}, which is an input or the output; choose another name")
        if folder is None or folder.exists() or preview.parent.resolve() != folder.resolve():  # in one that will be made nothing is
            checked_target(preview, overwrite=overwrite)
    source = context.get_parameter_source("max_pixels")
    limit = max_pixels if source is not None and source.name == "COMMANDLINE" else None
    session = Session(request, overwrite=overwrite, preview=preview, quiet=quiet, as_json=as_json, resume=resume, limit=limit)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {folder} ({reason(error)}); choose another place") from error
    code = session.paint_all(jobs)
    if code:
        raise typer.Exit(code)


def replay(
    painted: Annotated[Path, typer.Argument(metavar="OUT", help="A picture that Scumble has painted.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NEW", help="Default: OUT-replayed beside OUT.", show_default=False)
    ] = None,
    content: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the content is now, if it was moved.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Paint a picture once more from the recipe in it, bit for bit.

    Files are looked for where they were, then beside OUT. The exit code is 1 if the new file is not the same to the last bit.
    """
    from scumble._formats import check_suffix
    from scumble.cli.jobs import Job, Session
    from scumble.picture import read_recipe
    from scumble.recipe import changes, restore

    recipe = read_recipe(painted)
    request, source = restore(recipe, painted, content)
    target = output or painted.with_name(f"{painted.stem}-replayed{painted.suffix}")
    check_suffix(target)
    code = Session(request, overwrite=overwrite, quiet=quiet, recipe=recipe).paint_all([Job(os.fspath(source), os.fspath(target))])
    if code:
        raise typer.Exit(code)
    if target.suffix.lower() == painted.suffix.lower() and target.read_bytes() != painted.read_bytes():
        why = "; ".join(changes(recipe)) or "this machine computes otherwise, or the picture was changed after it was painted"
        raise InputError(f"{target} is not bit for bit {painted}: {why}")
