"""The verb ``video``: films, animations, numbered pictures, raw frames, a camera."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scumble.cli.commands import defaults_from
from scumble.cli.painting import parse_memory, parse_pixels
from scumble.errors import UsageError

if TYPE_CHECKING:
    from scumble.style import Style
    from scumble.stylizer import Stylizer
    from scumble.video import Filmed
    from scumble.video.frames import Reader

VideoCommand = defaults_from("scumble.stylizer:Stylizer", "scumble.video.film:film")

STDIO = "-"
_AT = re.compile(r"(.+)@(\d+(?:\.\d+)?)s")


def video(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="IN",
            help="A film, a GIF, WebP or APNG, numbered pictures as frames/%05d.png, or - for raw frames (see --raw).",
            show_default=False,
        ),
    ] = None,
    *,
    style: Annotated[
        list[str] | None,
        typer.Option(
            "--style",
            "-s",
            metavar="STYLE[@SECONDSs]",
            help="As for `scumble stylize`; repeated, each with its time: great-wave@0s, starry-night@4s, and morphing between.",
        ),
    ] = None,
    blend: Annotated[str | None, typer.Option(metavar="NAME=0.7,NAME=0.3", help="Several styles in one, in place of --style.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help=".mp4, .mov, .mkv, .webm, .gif, .webp, .apng, numbered pictures, or - for raw RGB frames.",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(metavar="0..2", help="0 is the input, 1 the style; above, the input counts for less.")
    ] = None,
    style_scale: Annotated[
        float | None,
        typer.Option(metavar="0.25..4", help="Width of the brush relative to the frame. Default: the brush's own, in pixels."),
    ] = None,
    keep_color: Annotated[float | None, typer.Option(metavar="0..1", help="How much of the input's colours stays.")] = None,
    grain: Annotated[
        float | None,
        typer.Option(metavar="0..4", help="Strokes for what is flat, which stand still: for drawings, and cameras that do so, too."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="METHOD", help="generator (one pass), or how features are fused: linear, adain, wct, ot.")
    ] = None,
    steady: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="How much is carried over from frame to frame, along the movement. Default: 0.75, with OpenCV."),
    ] = None,
    codec: Annotated[
        str | None, typer.Option(metavar="CODEC", help="h264, h265, vp9 or av1. Default: h264, vp9 for .webm.", show_default=False)
    ] = None,
    crf: Annotated[
        int | None, typer.Option(metavar="N", help="The codec's quality; lower is better. Default: the codec's own.", show_default=False)
    ] = None,
    fps: Annotated[
        str | None, typer.Option(metavar="N", help="Frames a second of numbered pictures. Default: 25.", show_default=False)
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(metavar="WxH@FPS", help="What comes by standard input: bytes R, G, B without a header.", show_default=False),
    ] = None,
    camera: Annotated[
        int | None, typer.Option(metavar="N", help="Paint what camera N sees, in place of IN, until Ctrl-C.", show_default=False)
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="The longer side of the result in pixels. Default: as the input.")] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="1GB", parser=parse_memory, help="A budget for each frame: larger ones are painted in tiles.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same command was stopped or killed.")] = False,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, coreml or directml.")] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="For painting. Default: all cores but one, which reads and encodes.")
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(metavar="N", parser=parse_pixels, help="Refuse larger frames; 50M, 2G.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Paint a moving picture without flicker; its sound, frame times and size stay.

    Ctrl-C leaves a whole file of what is done so far, and --resume goes on from there.
    """
    if (source is None) == (camera is None):
        raise UsageError("give a film to paint, or --camera N" + ("" if source is None else ", not both"))
    if output is None:
        raise UsageError("say where the result goes with -o OUT, as in -o painted.mp4")
    if bool(style) == bool(blend):
        raise UsageError("give a style with --style, or several in one with --blend" + (", not both" if style else ""))
    if (raw is not None) != (source == STDIO):
        raise UsageError("frames by standard input need both: - in place of a file, and --raw WIDTHxHEIGHT@FPS")
    if output == STDIO and as_json:
        raise UsageError("frames and --json can't both go to standard output; give -o FILE")
    from scumble.picture import DEFAULT_MAX_PIXELS
    from scumble.stylizer import Stylizer
    from scumble.video.film import film, painting_threads, standard_output
    from scumble.video.frames import parse_rate
    from scumble.video.reading import is_numbered

    if fps is not None and (source is None or not is_numbered(source) or Path(source).exists()):
        told = "--raw says it of raw frames" if raw is not None else f"{source or 'a camera'} keeps its own frame times"
        raise UsageError(f"--fps is for numbered pictures, as in frames/%05d.png; leave it out: {told}")
    painter = Stylizer(device or "auto", painting_threads() if threads is None else threads, max_pixels or DEFAULT_MAX_PIXELS)
    styles = _styles(style, blend, painter)
    more = {"rate": parse_rate(fps)} if fps is not None else {}
    settings: dict[str, Any] = {
        "strength": strength, "method": method, "style_scale": style_scale, "keep_color": keep_color, "grain": grain, "steady": steady,
        "size": size, "memory": memory, "max_pixels": max_pixels, "codec": codec, "crf": crf, "overwrite": overwrite, "resume": resume,
        **more,
    }  # fmt: skip
    target = standard_output() if output == STDIO else output
    with _Watch(quiet=quiet or as_json).running() as watch:
        done = film(
            _reader(source, raw, camera), styles, target, stylizer=painter, progress=watch.progress, stop=watch.stopping.is_set, **settings
        )
    if output != STDIO:
        _report(done, source or f"camera {camera}", output, quiet=quiet, as_json=as_json)
    if done.interrupted and camera is None:
        raise typer.Exit(130)


def _styles(style: Sequence[str] | None, blend: str | None, painter: Stylizer) -> list[tuple[float | None, Style]]:
    """The styles, encoded, and when each is reached."""
    if blend:
        from scumble.recipe import parse_blend
        from scumble.style import Blend

        return [(None, Blend(tuple((weight, painter.style(name)) for weight, name in parse_blend(blend))).blended())]
    from scumble.style import is_name

    timed: list[tuple[float | None, str]] = []
    for text in style or ():
        found = None if Path(text).exists() else _AT.fullmatch(text)
        name, at, seconds = text.rpartition("@")
        if found is None and at and is_name(text):
            raise UsageError(f"the time of {name} must be seconds, as in {name}@4s; got {seconds!r}")
        timed.append((None, text) if found is None else (float(found[2]), found[1]))
    if len(timed) > 1 and any(seconds is None for seconds, _ in timed):
        raise UsageError("several styles need a time each, as in --style great-wave@0s --style starry-night@4s")
    return [(seconds, painter.style(name)) for seconds, name in timed]


def _reader(source: str | None, raw: str | None, camera: int | None) -> str | Reader:
    if camera is not None:
        from scumble.video.reading import Camera

        return Camera(camera)
    if raw is not None:
        from scumble.video.frames import parse_raw
        from scumble.video.reading import Raw

        return Raw(sys.stdin.buffer, *parse_raw(raw))
    assert source is not None
    return source


def _report(done: Filmed, source: str, output: str, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "input": source,
                    "output": output,
                    "frames": done.frames,
                    "size": list(done.size),
                    "seconds": round(done.seconds, 3),
                    "interrupted": done.interrupted,
                }
            )
        )
    elif not quiet:
        width, height = done.size
        count = "1 frame" if done.frames == 1 else f"{done.frames} frames"
        typer.echo(f"{output}  {count}  {width} x {height}  {done.seconds:.1f} s{'  (interrupted)' if done.interrupted else ''}")


class _Watch:
    """The bar, and Ctrl-C: the first one ends the work after the frame it is at, the second gives it up."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.stopping = threading.Event()
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def running(self) -> Generator[_Watch, None, None]:
        """As long as this lasts, Ctrl-C is listened to, and the bar is shown if there is a terminal for it."""
        before: Any = None
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, self._on_interrupt)
        if sys.stderr.isatty() and not self.quiet:
            self._bar = _new_bar()
            self._bar.start()
            self._task = self._bar.add_task("frames", total=None)
        try:
            yield self
        finally:
            if self._bar is not None:
                self._bar.stop()
            if before is not None:
                signal.signal(signal.SIGINT, before)

    def progress(self, done: int, total: int | None) -> None:
        """A frame is written."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=None if total is None else max(total, done))

    def _on_interrupt(self, _signal: int, _frame: object) -> None:
        if self.stopping.is_set():
            raise KeyboardInterrupt
        self.stopping.set()
        if not self.quiet:
            typer.echo("stopping; what is done so far becomes a whole file. Ctrl-C again gives it up", err=True)


def _new_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
