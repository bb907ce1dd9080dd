"""The measurements: each gives rows, and the table that shows them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.clock import ROOT, Budget, Times, apart, commands, in_turn, measure
from benchmarks.tasks import photograph

Row = dict[str, Any]
Size = tuple[int, int]
"""(height, width)"""

METHODS = ("generator", "good", "linear", "adain", "wct", "ot")


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Table:
    made = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for i, head in enumerate(heads):
        made.add_column(head, justify="left" if i == 0 or head == "method" else "right")
    for row in rows:
        made.add_row(*row)
    return made


def named(size: Size) -> str:
    return f"{size[1]} × {size[0]}"


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.1f}"


def methods(sizes: Sequence[Size], budget: Budget, note: Callable[[str], None]) -> tuple[list[Row], Table]:
    """(a) Every method at every size; above 2048² the generator alone: the others would need many GiB, and a look is at less."""
    rows: list[Row] = []
    for size in sizes:
        for method in METHODS:
            if method != "generator" and size[0] * size[1] > 2048**2:
                continue
            note(f"{method} at {named(size)}")
            row = apart("paint", method=method, height=size[0], width=size[1], budget=vars(budget))
            row |= {"method": method, "size": size}
            base = next(r for r in rows if r["size"] == size) if method != "generator" else row
            rows.append(row | {"ratio": row["median"] / base["median"]})
    shown = table(
        "Painting, by method",
        ["size", "method", "best ms", "median ms", "runs", "× generator", "peak MiB"],
        [
            [named(r["size"]), r["method"], ms(r["best"]), ms(r["median"]), str(r["n"]), f"{r['ratio']:.1f}", f"{r['peak']:.0f}"]
            for r in rows
        ],
        "pixels to pixels, style at hand and nets loaded; good is the generator's second pass after a look at its first;"
        " peak of a process of its own, all it has loaded included",
    )
    return rows, shown


def versus(sizes: Sequence[Size], budget: Budget, note: Callable[[str], None]) -> tuple[list[Row], Table]:
    """(b) Our generator and a network of MicroAST's shape, in turn, in one process: by ONNX Runtime with our settings, and by PyTorch."""
    import onnxruntime as ort

    from benchmarks.microast_shape import in_pytorch, microast_shape, parameters
    from scumble.engine import Engine
    from scumble.picture import Picture
    from scumble.style import Style

    engine, model = Engine("cpu"), microast_shape()
    modulation = Style.from_image(Picture.from_array(photograph(256, 256, seed=1)), engine=engine).modulation(engine)
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as in Engine
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    as_published = in_pytorch(model)
    rows: list[Row] = []
    for size in sizes:
        note(f"generator and MicroAST's shape at {named(size)}")
        pixels = photograph(*size)

        def reference(pixels: np.ndarray = pixels) -> np.ndarray:
            batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
            return np.clip(session.run(None, {"content": batch})[0][0].transpose(1, 2, 0), 0, 1)

        def ours(pixels: np.ndarray = pixels) -> np.ndarray:
            return engine.paint(pixels, modulation)[0]

        def published(pixels: np.ndarray = pixels) -> np.ndarray:
            batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
            return np.clip(as_published(batch)[0].transpose(1, 2, 0), 0, 1)

        def unfinished(pixels: np.ndarray = pixels) -> np.ndarray:
            return engine.paint(pixels, modulation[: engine.modulations])[0]

        a, b, c, net = in_turn([ours, reference, published, unfinished], budget)
        rows.append({
            "size": size, "generator": asdict(a), "microast": asdict(b), "microast_pytorch": asdict(c), "net": asdict(net),
            "ratio": b.median / a.median, "best_ratio": b.best / a.best,
            "pytorch_ratio": c.median / a.median, "pytorch_best_ratio": c.best / a.best,
            "net_ratio": b.best / net.best, "net_pytorch_ratio": c.best / net.best,
        })  # fmt: skip
    shown = table(
        "The generator and MicroAST's shape",
        ["size", "generator ms", "(best)", "MicroAST ms", "(best)", "times", "(best)", "in PyTorch ms", "(best)", "times", "(best)",
         "our net alone ms (best)", "times", "times"],
        [
            [
                named(r["size"]),
                *(ms(r[name][of]) for name in ("generator", "microast") for of in ("median", "best")),
                f"{r['ratio']:.2f}", f"{r['best_ratio']:.2f}",
                *(ms(r["microast_pytorch"][of]) for of in ("median", "best")),
                f"{r['pytorch_ratio']:.2f}", f"{r['pytorch_best_ratio']:.2f}",
                ms(r["net"]["best"]), f"{r['net_ratio']:.2f}", f"{r['net_pytorch_ratio']:.2f}",
            ]
            for r in rows
        ],
        f"pixels to pixels, runs in turn; random weights in the published shape, {parameters(model) / 1e6:.2f} M on the content's path;"
        " our net alone is the generator without the finish, beside the best times of MicroAST's shape by ONNX Runtime and by PyTorch",
    )  # fmt: skip
    return rows, shown


def command(size: Size, budget: Budget, note: Callable[[str], None]) -> tuple[list[Row], Table]:
    """(c) What a user waits for: the whole command from process start, and the parts of that which no picture needs."""
    from scumble.picture import Picture

    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        photo, work, out = (Path(folder) / name for name in ("photo.png", "work.png", "out.png"))
        for path, seed in ((photo, 0), (work, 1)):
            Picture.from_array(photograph(*size, seed=seed)).save(path)
        base = [python, "-m", "scumble", "stylize", str(photo), "-o", str(out), "--overwrite", "--quiet", "--style"]
        lines = {
            "python -c pass": [python, "-c", "pass"],
            "import scumble": [python, "-c", "import scumble"],
            "from scumble import stylize": [python, "-c", "from scumble import stylize"],
            f"scumble stylize, a picture for style, {named(size)}": [*base, str(work)],
            f"the same, --method wct, {named(size)}": [*base, str(work), "--method", "wct"],
        }
        if builtin := _first_style():
            lines[f"scumble stylize, --style {builtin}, {named(size)}"] = [*base, builtin]
        note("whole commands")
        times = hyperfine(list(lines.values()), budget) if shutil.which("hyperfine") else commands(list(lines.values()), budget)
    rows = [{"command": name, **asdict(t)} for name, t in zip(lines, times, strict=True)]
    shown = table(
        "From process start",
        ["command", "best ms", "median ms", "runs"],
        [[r["command"], ms(r["best"]), ms(r["median"]), str(r["n"])] for r in rows],
        "hyperfine" if shutil.which("hyperfine") else "",
    )
    return rows, shown


def hyperfine(lines: Sequence[Sequence[str]], budget: Budget) -> list[Times]:
    """As :func:`benchmarks.clock.commands`, by hyperfine, which also takes out what its shell costs."""
    import json
    import shlex
    import subprocess

    from benchmarks.clock import environment

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        settings = ["--warmup", "1", "--min-runs", str(budget.least), "--max-runs", str(budget.most), "--export-json", str(report)]
        call = ["hyperfine", "-N", *settings, *(shlex.join(line) for line in lines)]
        subprocess.run(call, cwd=ROOT, env=environment(), check=True, capture_output=True)
        return [Times.of(r["times"]) for r in json.loads(report.read_text())["results"]]


def install() -> tuple[list[Row], Table]:
    """The size on disk of what ``pip install scumble`` brings, from the files that each distribution lists."""
    rows = [{"distribution": "scumble", "megabytes": _megabytes(p for p in (ROOT / "src").rglob("*") if p.is_file())}]
    for name in sorted(_needed()):
        files = metadata.distribution(name).files or []
        rows.append({"distribution": name, "megabytes": _megabytes(Path(str(f.locate())) for f in files)})
    total = sum(r["megabytes"] for r in rows)
    rows = sorted(rows, key=lambda r: -r["megabytes"])
    small = sum(r["megabytes"] for r in rows[6:])
    lines = [[r["distribution"], f"{r['megabytes']:.1f}"] for r in rows[:6]] + [[f"{len(rows) - 6} others", f"{small:.1f}"]]
    caption = "without compiled Python files, which Python writes itself"
    shown = table("The default install", ["distribution", "MB"], [*lines, ["all", f"{total:.1f}"]], caption)
    return [*rows, {"distribution": "all", "megabytes": total}], shown


def refinement(size: Size, note: Callable[[str], None]) -> tuple[list[Row], Table]:
    """(d) The qualities that optimise."""
    rows: list[Row] = []
    for quality in ("fine", "best"):
        note(f"quality {quality} at {named(size)}")
        rows.append({"quality": quality, "size": size, **apart("refine", quality=quality, height=size[0], width=size[1])})
    shown = table(
        f"Refinement at {named(size)}",
        ["quality", "seconds", "peak MiB"],
        [[r["quality"], f"{r['seconds']:.1f}", f"{r['peak']:.0f}"] for r in rows],
        "one run each",
    )
    return rows, shown


def floor(budget: Budget) -> Times:
    """A fixed piece of arithmetic, to tell how busy the machine was: compare it between runs before comparing anything else."""
    a = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    return measure(lambda: a @ a, budget)


def _first_style() -> str | None:
    from scumble import library
    from scumble.errors import InputError

    try:
        return next(iter(library.entries()), None)
    except InputError:
        return None


def _needed() -> set[str]:
    """All distributions that scumble needs without extras, as they are installed."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    todo = _core_dependencies()
    while todo:
        requirement = Requirement(todo.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in found or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        todo += metadata.requires(name) or []
    return found


def _core_dependencies() -> list[str]:
    """From pyproject.toml, so that it also works from a checkout that is not installed."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def _megabytes(paths: Iterable[Path]) -> float:
    return sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.is_file()) / 1e6
