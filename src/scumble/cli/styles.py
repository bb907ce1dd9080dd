"""The verbs ``styles list | show | add | remove``: the library of styles by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scumble.cli.commands import HelpfulGroup
from scumble.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from scumble.picture import Picture

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
) -> None:
    """Say what a style is, and paint a sample of it."""
    from scumble.style import Style

    if photo is not None and output is None:
        raise UsageError("--photo is what the sample is painted from; say where to write that with -o OUT.png")
    style = Style.named(name)
    facts = {"name": style.name, **style.about}
    for key, value in facts.items():
        typer.echo(f"{key:<8} {value}")
    if output is None:
        return
    from scumble.stylizer import Stylizer

    content = _sample_photo(photo)
    Stylizer()(content, style, size=min(THUMBNAIL, max(content.size))).save(output, overwrite=overwrite)
    typer.echo(f"{'sample':<8} {output}")


def _sample_photo(photo: Path | None) -> Picture:
    from scumble.picture import Picture

    if photo is not None:
        return Picture.open(photo)
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError('there is no photograph to paint: give one with --photo FILE, or pip install "scumble[demo]"') from error
    return Picture.from_array(data.astronaut())


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a style of your own that has this name.")] = False,
) -> None:
    """Give a style a name: it is encoded once and kept among your own styles."""
    from dataclasses import replace

    from scumble import library
    from scumble.style import Style, pictures_in

    library.check_name(name)
    pictures = [picture for work in works for picture in (pictures_in(work) if work.is_dir() else [work])]
    style = Style.from_pictures(pictures)
    about = {key: text for key, text in (("title", title), ("artist", artist), ("year", year)) if text}
    folder = library.user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = replace(style, name=name, about=about).save(folder / f"{name}.style", overwrite=overwrite)
    typer.echo(f"{name} is in {path}")


@app.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)]) -> None:
    """Remove a style of your own. Built-in ones stay."""
    from scumble import library

    typer.echo(f"{library.remove(name)} is removed")
