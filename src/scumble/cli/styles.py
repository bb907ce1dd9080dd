"""The verbs ``styles list | show | add | remove``: the library of styles by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scumble._files import reason
from scumble.cli.commands import HelpfulGroup
from scumble.errors import InputError, MissingExtraError, UsageError, in_range

if TYPE_CHECKING:
    from scumble.picture import Picture
    from scumble.style import Style

app = typer.Typer(cls=HelpfulGroup, help="List the styles that have a name, and add your own.")

THUMBNAIL = 384
"""Longer side of what ``show`` paints, in pixels."""


@app.command("list")
def list_styles(
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Only those that have TEXT in any column.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List all styles by name: built-in and your own. Piped, the columns are separated by tabs."""
    import json
    import sys

    from scumble import library

    columns = ("name", "title", "artist", "year", "medium", "group")
    rows = [[str(getattr(entry, column)) for column in columns] for entry in library.entries().values()]
    rows = [row for row in rows if not search or search.casefold() in " ".join(row).casefold()]
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
    elif not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns[:4], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row[:4])
        Console(markup=False, highlight=False).print(table)
    if search and not rows:
        typer.echo(f"no style has {search!r} in it; without --search all are listed", err=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT.png", help="Paint a small sample there.", show_default=False)
    ] = None,
    photo: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The photograph to paint. Default: the portrait that comes with scikit-image.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say what a style is, and paint a sample of it."""
    import json

    from scumble.style import Style

    if photo is not None and output is None:
        raise UsageError("--photo is what the sample is painted from; say where to write that with -o OUT.png")
    style = Style.named(name)
    facts = {"name": style.name, **style.about}
    if output is not None:
        _paint_sample(style, photo).save(output, overwrite=overwrite)
        facts["sample"] = str(output)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        for key, value in facts.items():
            typer.echo(f"{key:<8} {value}")


def _paint_sample(style: Style, photo: Path | None) -> Picture:
    from scumble.picture import Picture
    from scumble.stylizer import Stylizer

    content = _sample_photos("--photo FILE", "astronaut")[0] if photo is None else Picture.open(photo)
    return Stylizer()(content, style, size=min(THUMBNAIL, max(content.size)))


def _sample_photos(option: str, *names: str) -> list[Picture]:
    from scumble.picture import Picture

    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError(f'there is no photograph to paint: give one with {option}, or pip install "scumble[demo]"') from error
    return [Picture.from_array(getattr(data, name)()) for name in names]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.", show_default=False)],
    works: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURE", help="One or more pictures, or folders of them: all make one style.", show_default=False),
    ],
    *,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Of the work.", show_default=False)] = "",
    artist: Annotated[str, typer.Option(metavar="TEXT", help="Who made it.", show_default=False)] = "",
    year: Annotated[str, typer.Option(metavar="TEXT", help="When.", show_default=False)] = "",
    tune: Annotated[bool, typer.Option("--tune", help="Practise it on photographs, to paint it better (needs PyTorch; a minute).")] = False,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Photographs or folders to practise on. Default: four that come with scikit-image.", show_default=False
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="How many steps to practise. Default: 120.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a style of your own that has this name.")] = False,
) -> None:
    """Give a style a name: it is encoded once and kept among your own styles."""
    from dataclasses import replace

    from scumble import library
    from scumble.style import Style, works_in

    library.check_name(name)
    if not tune and (photos or steps is not None):
        raise UsageError("--photos and --steps are for practising; add --tune")
    if steps is not None:
        in_range("steps", steps, 1, 100_000)
    path = library.user_folder() / f"{name}.style"
    if path.exists() and not overwrite:  # before a minute's work and not after it
        raise InputError(f"you have a style {name} already; choose another name, or replace it with --overwrite")
    pictures = [picture for work in works for picture in (works_in(work) if work.is_dir() else [work])]
    style = Style.from_pictures(pictures)
    if tune:
        style = _tuned(style, pictures, photos or [], steps)
    about = {key: text for key, text in (("title", title), ("artist", artist), ("year", year)) if text}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"styles can't be kept in {path.parent} ({reason(error)}); name another folder with SCUMBLE_STYLES") from error
    replace(style, name=name, about=about).save(path, overwrite=overwrite)
    typer.echo(f"{name} is in {path}")


def _tuned(style: Style, works: list[Path], places: list[Path], steps: int | None) -> Style:
    from dataclasses import replace

    from scumble.cli.reporter import Reporter
    from scumble.picture import Picture
    from scumble.style import works_in

    try:
        from scumble.train.tuning import RECIPE, practise
    except ImportError as error:
        raise MissingExtraError('--tune needs PyTorch: pip install "scumble[torch]"') from error
    paths = [path for place in places for path in (works_in(place) if place.is_dir() else [place])]
    photos = [Picture.open(path) for path in paths] or _sample_photos("--photos PATH", "astronaut", "coffee", "chelsea", "rocket")
    recipe = RECIPE if steps is None else replace(RECIPE, steps=steps)
    reporter = Reporter()
    with reporter.running(1):
        return practise(style, photos, [Picture.open(path) for path in works], recipe, reporter.practised)


@app.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)]) -> None:
    """Remove a style of your own. Built-in ones stay."""
    from scumble import library

    typer.echo(f"{library.remove(name)} is removed")
