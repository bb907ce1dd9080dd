"""The verbs ``export generator | style``: one ONNX file that needs nothing of this library."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from scumble._files import checked_target, put_in_place, reason
from scumble.cli.commands import HelpfulGroup
from scumble.errors import InputError, MissingExtraError, UsageError, in_range

app = typer.Typer(cls=HelpfulGroup, help="Write self-contained ONNX files for other programs (needs PyTorch).")

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write, .onnx.", show_default=False)]
Format = Annotated[str, typer.Option(metavar="onnx", help="The format.")]
Grain = Annotated[float, typer.Option(metavar="0..4", help="Strokes for what is flat: 1 as a photograph's noise makes them, 0 none.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]


@app.command("generator")
def generator(*, output: Output, grain: Grain = 1.0, to: Format = "onnx", overwrite: Overwrite = False) -> None:
    """Any style: inputs `content` (1, 3, H, W), `style` (1, 736), `texture` (1, 480), output `painted`."""
    _export(None, output, grain, to, overwrite)


@app.command("style")
def style(
    style: Annotated[str, typer.Argument(metavar="STYLE", help="A name, a picture, a folder or a .style file.", show_default=False)],
    *,
    output: Output,
    grain: Grain = 1.0,
    to: Format = "onnx",
    overwrite: Overwrite = False,
) -> None:
    """One style, folded in: input `content` (1, 3, H, W), output `painted`."""
    _export(style, output, grain, to, overwrite)


def _export(style: str | None, output: Path, grain: float, to: str, overwrite: bool) -> None:
    in_range("grain", grain, 0.0, 4.0)
    if to != "onnx" or output.suffix != ".onnx":
        raise UsageError(f"the format is onnx and the file ends in .onnx; got {to} and {output.name}")
    target = checked_target(output, overwrite=overwrite)
    try:
        from scumble.train.export import OPSET, export_self_contained
    except ImportError as error:
        raise MissingExtraError(f'export needs PyTorch and ONNX ({error}): pip install "scumble[torch]"') from error
    from scumble.style import Style

    part = target.with_name(f".scumble-{secrets.token_hex(8)}.part")
    try:
        difference = export_self_contained(part, None if style is None else Style.open(style), grain)
        put_in_place(part, target, overwrite=overwrite)
    except OSError as error:
        raise InputError(f"cannot write {output} ({reason(error)}); free space, or choose another place") from error
    finally:
        part.unlink(missing_ok=True)
    typer.echo(f"{output}: opset {OPSET}, any height and width from 128 pixels; ONNX Runtime and PyTorch agree within {difference:.1g}")
