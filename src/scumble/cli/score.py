"""The verb ``score``: how well it went, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scumble.cli.commands import defaults_from

ScoreCommand = defaults_from("scumble.engine:Engine")

MEANINGS = {
    "content": "distance from the content: 0 is the same picture, about 2 an unrelated one",
    "structure": "distance from the content's layout: 0 is the same",
    "style": "distance from the style's statistics: 0 is the same, a photograph is at about 1 to 3",
    "ssim": "likeness to the content, pixel by pixel: 1 is the same",
    "halo": "rims around edges beside flat places, in 8-bit steps: photographs have about 1",
}


def score(
    painted: Annotated[Path, typer.Argument(metavar="OUT", help="The painted picture.", show_default=False)],
    content: Annotated[Path, typer.Option(metavar="C", help="The picture it was painted from.", show_default=False)],
    style: Annotated[str, typer.Option(metavar="S", help="The style: a name, a picture, a folder or a .style file.", show_default=False)],
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, coreml or directml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Measure how close a painted picture is to its content and to its style."""
    import json
    from dataclasses import asdict

    from scumble import metrics
    from scumble.engine import Engine
    from scumble.picture import Picture
    from scumble.style import Style

    engine = Engine(device or "auto")
    scores = asdict(metrics.score(Picture.open(painted), Picture.open(content), Style.open(style, engine=engine), engine))
    if as_json:
        typer.echo(json.dumps(scores))
        return
    for name, value in scores.items():
        typer.echo(f"{name:<10} {value:8.4f}   {MEANINGS[name]}")
