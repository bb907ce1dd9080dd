"""The benchmarks that no machine of ours runs every day: that they run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytest.importorskip("torch", reason="frames on a GPU are painted by PyTorch")


def test_frames_of_the_device_are_those_of_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.clock import Budget
    from benchmarks.gpu import gpu

    rows, shown = gpu([(60, 100)], Budget(1, 1, 0.0), lambda _: None, device="cpu", compiled=False)

    assert [row["batch"] for row in rows] == [1, 4]
    assert all(row["error"] < 1e-3 for row in rows)
    assert all(0 < row["share"] < 1 for row in rows)
    assert shown.row_count == 2


def test_without_a_gpu_it_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--only", "gpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is none here" in done.stderr
