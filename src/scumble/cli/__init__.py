"""The command line: one verb a job.

Here are the app and how it ends: exit codes and error lines. Each verb stands in a module of its own and imports what it needs
when it runs, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from scumble import __version__
from scumble.cli import doctor, export, painting, score, serve, styles, train, video
from scumble.cli.commands import HelpfulGroup
from scumble.errors import ScumbleError, UsageError, unknown

# our matrices are small: on them OpenBLAS' threads wait for each other by spinning, a blend of two styles took five times as long
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_UNWRITTEN = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF)

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

# older Typer builds on Click, newer carries its own copy: the class that both raise for wrong usage is reached through a public one
_WrongUsage: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="scumble",
    cls=HelpfulGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"scumble {__version__}")
        raise typer.Exit


@app.callback()
def scumble(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (also SCUMBLE_DEBUG=1).")] = False,
) -> None:
    """Repaint a picture in the manner of another."""


app.command("stylize", cls=painting.StylizeCommand)(painting.stylize)
app.command("replay")(painting.replay)
app.add_typer(styles.app, name="styles")
app.command("video", cls=video.VideoCommand)(video.video)
app.command("score", cls=score.ScoreCommand)(score.score)
app.add_typer(train.app, name="train")
app.add_typer(export.app, name="export")
app.command("serve", cls=serve.ServeCommand)(serve.serve)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    if not sys.warnoptions and not os.environ.get("SCUMBLE_DEBUG"):
        warnings.simplefilter("ignore")  # libraries warn developers; what a user should know is logged or raised
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line with ``arguments``; returns its exit code. Errors are one line on stderr each."""
    arguments, debug = _without_debug(arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as a job in the background may find it
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w")))
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that the terminal can't show must not end the program
    try:
        code: Any = app(args=list(arguments), prog_name="scumble", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone; what is still buffered must not complain once more on exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the last place where one can be told in a sentence
        if debug:
            raise
        line, code = _explained(error)
        typer.echo(f"error: {' '.join(line.splitlines())}", err=True)
        return code


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """``--debug`` is taken wherever it stands: it is added to a line that has just failed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [a for a in arguments[:end] if a != "--debug"]
    asked = len(kept) < end or os.environ.get("SCUMBLE_DEBUG", "0") not in ("", "0")
    return kept + list(arguments[end:]), asked


def _explained(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code for ``error``."""
    if isinstance(error, UsageError):
        return str(error), WRONG_USAGE
    if isinstance(error, ScumbleError):
        return str(error), FAILED
    if isinstance(error, _WrongUsage):
        return _wrong_usage(error), WRONG_USAGE
    if isinstance(error, OSError):
        why = (error.strerror or str(error)).lower()
        if error.filename is None and error.errno in _UNWRITTEN:  # where it is a file that we write, its name is told
            return f"standard output can't be written ({why}); give it another place", FAILED
        return f"{error.filename}: {why}" if error.filename else why, FAILED
    if isinstance(error, MemoryError):
        return "out of memory; give smaller pictures, --size, or fewer at a time", FAILED
    return f"{type(error).__name__}: {error} (this is a bug; --debug shows where)", FAILED


def _wrong_usage(error: Any) -> str:
    option, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    text = unknown("option", option, near) if option and near else error.format_message().rstrip(".")
    context = error.ctx
    return f"{text[:1].lower()}{text[1:]} (see `{context.command_path if context else 'scumble'} --help`)"
