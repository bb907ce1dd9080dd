"""The sight: what it predicts, where it comes from, and that the eye stays as it is."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from scumble.cli import run  # noqa: E402
from scumble.errors import InputError  # noqa: E402
from scumble.nets.eye import TEACHER_WIDTHS  # noqa: E402
from scumble.nets.refine import style_statistics  # noqa: E402
from scumble.nets.sight import Connoisseur, Critic, Sight, load_sight  # noqa: E402
from scumble.nets.vgg import EYE_WEIGHTS, load_encoder  # noqa: E402
from scumble.train import sight as training  # noqa: E402
from scumble.train.data import HELD_OUT_EVERY, Crops, read_pictures  # noqa: E402
from scumble.train.eye import SETS, channel_scales, correlations  # noqa: E402
from scumble.train.loop import Recipe  # noqa: E402
from scumble.train.sight import train_sight  # noqa: E402
from scumble.train.teacher import PLAN, Teacher  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def quick_validation(monkeypatch):
    monkeypatch.setattr(training, "HELD", (1, 2, 48))


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    rng = np.random.default_rng(0)
    for name in SETS:
        with tarfile.open(folder / name, "w") as tar:
            for i in range(HELD_OUT_EVERY + 1):
                data = io.BytesIO()
                small = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
                Image.fromarray(small).resize((224, 192), Image.Resampling.BICUBIC).save(data, "WEBP")
                info = tarfile.TarInfo(f"{i:03d}.webp")
                info.size = data.tell()
                data.seek(0)
                tar.addfile(info, data)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """Nets in the form of the teacher's, with weights drawn at random."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    names = [n for n in PLAN if n != "p"]
    for file, divisor, last in (("vgg19_to_relu3_4", 1, "3_4"), ("vgg19_sixteenth_to_relu5_1", 16, "5_1")):
        tensors, before = {"preprocess.weight": torch.eye(3)[:, :, None, None], "preprocess.bias": torch.zeros(3)}, 3
        for name in names[: names.index(last) + 1]:
            width = max(4, TEACHER_WIDTHS[int(name[0]) - 1] // divisor)
            tensors[f"conv{name}.weight"] = torch.randn(width, before, 3, 3) * (2 / 9 / before) ** 0.5
            tensors[f"conv{name}.bias"] = torch.zeros(width)
            before = width
            if name.endswith("_1"):
                wide = TEACHER_WIDTHS[int(name[0]) - 1]
                tensors[f"head{name}.weight"] = torch.randn(wide, width, 1, 1) / width**0.5
                tensors[f"head{name}.bias"] = torch.zeros(wide)
        save_file(tensors, folder / f"{file}.safetensors")
    return folder


def test_training_moves_all_but_the_eye_and_resumes(pack, teacher, tmp_path):
    eye = load_encoder("eye")
    before = {k: v.clone() for k, v in eye.state_dict().items()}
    sight = train_sight(pack, teacher, eye, tmp_path, Recipe(steps=2, learning_rate=1e-3, log_every=1), size=32, batch=3)
    again = train_sight(pack, teacher, eye, tmp_path, Recipe(steps=2), size=32, batch=3)
    assert all(torch.equal(v, sight.eye.state_dict()[k]) for k, v in before.items())
    assert all(torch.equal(v, again.own()[k]) for k, v in sight.own().items())
    on = train_sight(pack, teacher, eye, tmp_path, Recipe(steps=4, learning_rate=1e-2, warm_up=1), size=32, batch=3, start=again)
    assert {k.split(".")[0] for k, v in on.own().items() if not torch.equal(v, sight.own()[k])} == {"beside", "heads"}


def test_heads_begin_at_least_squares(pack, teacher, tmp_path, monkeypatch):
    def unexplained(folder):
        train_sight(pack, teacher, load_encoder("eye"), folder, Recipe(steps=1, learning_rate=1e-9, log_every=1), size=48, batch=4)
        (row,) = csv.DictReader((folder / "log.csv").open())
        return [float(row[level]) for level in ("relu1_1", "relu2_1", "relu3_1")]

    solved = unexplained(tmp_path / "solved")
    monkeypatch.setattr(training, "_solve_heads", lambda *_: None)
    assert all(a < b for a, b in zip(solved, unexplained(tmp_path / "drawn"), strict=True))


def test_the_command_writes_what_is_loaded(pack, teacher, tmp_path):
    out = tmp_path / "weights"
    common = ["--pack", pack, "--teacher", teacher, "--steps", 2, "--batch", 2, "--size", 32, "--weights", out]
    assert run(["train", "sight", *map(str, common), "--out", str(tmp_path / "a")]) == 0
    first = load_file(out / "sight.safetensors")
    assert 'origin = "scumble train, a"' in (out / "manifest.toml").read_text()
    assert run(["train", "sight", "--go-on", *map(str, common), "--out", str(tmp_path / "b")]) == 0
    second = load_sight(weights=out / "sight.safetensors").own()
    assert first.keys() == second.keys()
    apart = {k: float((first[k].float() - second[k]).abs().max()) for k in first}
    assert 0 < max(apart.values()) < 0.01  # it went on from there, two steps further


def test_weights_that_are_not_the_sights(tmp_path):
    with pytest.raises(InputError, match="does not hold the sight's weights"):
        load_sight(weights=EYE_WEIGHTS)
    with pytest.raises(InputError, match="no weights at"):
        load_sight(weights=tmp_path / "none.safetensors")


@torch.no_grad()
def test_the_critic_sees_with_the_eye_and_predicts_the_layout():
    sight = load_sight()
    critic = Critic(sight)
    x = torch.rand(1, 3, 48, 32)
    *taps, layout = critic(x)
    assert all(torch.equal(a, b) for a, b in zip(taps, sight.eye(x), strict=True))
    torch.testing.assert_close(layout, sight(x)[3])
    torch.testing.assert_close(layout, critic.layout_of(x))
    fine, predicted = Connoisseur(sight)(x)[:2], Connoisseur(sight)(x)[2:]
    assert all(torch.equal(a, b) for a, b in zip(fine, taps, strict=False))
    assert all(torch.equal(a, b) for a, b in zip(predicted, sight(x)[2:], strict=True))
    assert [m.mean.shape for m in style_statistics(critic, [np.zeros((32, 32, 3), np.float32)])] == [(16,), (32,), (64,), (128,), (128,)]


def test_the_sight_is_as_small_as_it_should_be():
    sight = Sight()
    assert sum(p.numel() for net in (sight.eye, sight.beside) for p in net.parameters()) <= 1_300_000


@torch.no_grad()
@pytest.mark.skipif(not (SHARED / "teacher").is_dir(), reason="the teacher networks and the training pack are not there")
def test_vgg_is_predicted_on_pictures_kept_out_of_training():
    nets, sight = Teacher(SHARED / "teacher"), load_sight()
    scales = channel_scales(nets, Crops([p for n in SETS for p in read_pictures(SHARED / "pack" / n, limit=40)]), 144)
    held = Crops([p for n in SETS for p in read_pictures(SHARED / "pack" / n, held_out=True, limit=20)])
    x = held.batch(16, 192, torch.Generator().manual_seed(7))
    found = correlations(sight(x), [t / s for t, s in zip(nets(x), scales, strict=True)])
    for value, aim in zip(found, (0.98, 0.90, 0.83, 0.80, 0.75), strict=True):
        assert value >= aim
