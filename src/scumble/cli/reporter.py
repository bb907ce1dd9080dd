"""What a user sees and can do while pictures are painted: a line for each, how far a refinement is, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import typer

from scumble.recipe import STDIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from scumble.large import Plan


class Reporter:
    """Lines or JSON objects on stdout; the bar and the failures on stderr.

    The first Ctrl-C during a refinement lets it end with the step it is at, any other is a KeyboardInterrupt as usual.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.stopping = False
        """Ctrl-C was pressed: no further picture is begun."""
        self.cut: int | None = None
        """The step after which the refinement was cut short."""
        self._refining = False
        self._done = 0
        self._bar: Progress | None = None
        self._pictures: TaskID | None = None
        self._steps: TaskID | None = None
        self._tiles: TaskID | None = None

    @contextmanager
    def running(self, pictures: int) -> Generator[None, None, None]:
        """As long as this lasts, Ctrl-C is listened to, and the bar is shown if there is a terminal for it."""
        with ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, self._on_interrupt))
            if sys.stderr.isatty() and not self.quiet and not self.as_json:
                bar = stack.enter_context(_new_bar())
                self._bar, self._pictures = bar, bar.add_task("pictures", total=pictures) if pictures > 1 else None
            yield
        self._bar = self._steps = None

    @contextmanager
    def refining(self) -> Generator[None, None, None]:
        """As long as this lasts, the first Ctrl-C is for :meth:`stop` to tell; the second is raised."""
        self._refining = True
        try:
            yield
        finally:
            self._refining = False
            if self._bar is not None and self._steps is not None:
                self._bar.remove_task(self._steps)
                self._steps = None

    def step(self, done: int, total: int, loss: float) -> None:
        """Progress of a refinement."""
        self._done = done
        self._advance("refining", done, total)

    def stop(self) -> bool:
        """Whether the user wants a refinement to end with the best so far; asked where it could go on."""
        if self.stopping:
            self.cut = self._done
        return self.stopping

    def practised(self, done: int, total: int, _loss: float) -> None:
        """Progress of tuning to a style."""
        self._advance("practising", done, total)

    def planned(self, source: str, plan: Plan, height: int, width: int) -> None:
        """A large picture is about to be painted in tiles."""
        if not self.quiet and not self.as_json:
            memory = f"{plan.estimate / 1e9:.2f} of {plan.budget / 1e9:.2f} GB of memory"
            self._tell(f"{source}  {width} x {height} in {plan.tiles} tiles of {plan.tile} pixels, {memory}")

    def tiled(self, done: int, total: int) -> None:
        """Progress of a large picture."""
        if self._bar is None:
            return
        if self._tiles is None:
            self._tiles = self._bar.add_task("tiles", total=total)
        self._bar.update(self._tiles, completed=done, total=total)
        if done == total:
            self._bar.remove_task(self._tiles)
            self._tiles = None

    def painted(self, done: dict[str, Any]) -> None:
        """One picture is written."""
        if self._bar is not None and self._pictures is not None:
            self._bar.advance(self._pictures)
        if self.as_json:
            typer.echo(json.dumps(done))
        elif not self.quiet and done["output"] != STDIO:
            line = f"{done['output']}  {done['size'][0]} x {done['size'][1]}  {done['seconds']:.1f} s"
            if self._bar is not None and sys.stdout.isatty():  # where the bar stands: it has to make room
                self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                typer.echo(line)

    def failed(self, source: str, reason: str) -> None:
        """One of several pictures could not be painted."""
        if self._bar is not None and self._pictures is not None:
            self._bar.advance(self._pictures)
        if self.as_json:
            typer.echo(json.dumps({"input": source, "error": reason}))

    def table(self, failures: Sequence[tuple[str, str]], inputs: int) -> None:
        """All failures, at the end, on stderr."""
        from rich.console import Console
        from rich.table import Table

        typer.echo(f"error: {len(failures)} of {inputs} inputs failed", err=True)
        table = Table("input", "why", box=None, show_header=False, pad_edge=False)
        for source, reason in failures:
            table.add_row(source, reason)
        # in a log, or piped into grep, a failure is one line however long
        Console(stderr=True, width=None if sys.stderr.isatty() else 10_000, markup=False, highlight=False).print(table)

    def _advance(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            return
        if self._steps is None:
            self._steps = self._bar.add_task(what, total=total)
        self._bar.update(self._steps, completed=done)

    def _on_interrupt(self, _signal: int, _frame: object) -> None:
        if not self._refining or self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        if self._bar is not None or not self.quiet:
            self._tell("stopping with the best so far; Ctrl-C again gives it up")

    def _tell(self, text: str) -> None:
        """A line on stderr, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(text, err=True)


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
