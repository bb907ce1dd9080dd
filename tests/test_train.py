"""Training runs: a few steps on made-up pictures. What they learn is measured elsewhere; here they start, stop, resume and export."""

from __future__ import annotations

import csv
import math
import re
import shutil
import tarfile
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the torch extra")

from scumble import Picture, Stylizer  # noqa: E402
from scumble.cli import run  # noqa: E402
from scumble.errors import InputError, UsageError  # noqa: E402
from scumble.nets.eye import Eye  # noqa: E402
from scumble.nets.finish import autocovariances, finish, narrow  # noqa: E402
from scumble.nets.generator import MARGIN, Generator, Shape  # noqa: E402
from scumble.train import data, decoder, generator, judge, loop  # noqa: E402
from scumble.train.data import HELD_OUT_EVERY, Crops, read_pictures  # noqa: E402
from scumble.train.teacher import Teacher  # noqa: E402
from scumble.train.validation import Pairs  # noqa: E402
from scumble.weights import weight_path  # noqa: E402

SMALL = Shape(half=8, quarter=8, eighth=8, blocks=1, rank=2, hidden=16)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    rng = np.random.default_rng(0)
    for name in ("content", "style", "style_small"):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for i in range(HELD_OUT_EVERY + 1):
                data = BytesIO()
                Image.fromarray(rng.integers(0, 256, (48, 56, 3), dtype=np.uint8)).save(data, "WEBP")
                info = tarfile.TarInfo(f"{name}/{i:03d}.webp")
                info.size = data.tell()
                data.seek(0)
                tar.addfile(info, data)
    return folder


@pytest.fixture(scope="module")
def eye() -> Eye:
    torch.manual_seed(0)
    return Eye()


def test_held_out_pictures_are_not_trained_on(pack: Path) -> None:
    trained, held = read_pictures(pack / "style.tar"), read_pictures(pack / "style.tar", held_out=True)
    assert (len(trained), len(held)) == (HELD_OUT_EVERY, 1)
    assert all(not torch.equal(held[0], p) for p in trained)


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training pictures at"):
        read_pictures(tmp_path / "content.tar")
    with pytest.raises(InputError, match="holds no pictures"):
        read_pictures(tmp_path)


def test_photographs_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.new("RGB", (24, 8)).save(tmp_path / "lying.jpg", exif=exif)
    assert [p.shape for p in read_pictures(tmp_path)] == [(3, 24, 8)]


def test_too_few_pictures_to_hold_one_out(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"holds 2 of 25 pictures that are needed: "):
        read_pictures(tmp_path, held_out=True)


def test_a_bad_picture_is_named(pack: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b\.jpg is damaged or not a picture"):
        read_pictures(tmp_path)
    with tarfile.open(tmp_path / "works.tar", "w") as tar:
        tar.add(tmp_path / "b.jpg", "inside/b.jpg")
    with pytest.raises(InputError, match=r"inside/b\.jpg in .*works\.tar is damaged"):
        read_pictures(tmp_path / "works.tar")
    for content in (b"no tar file", (pack / "style.tar").read_bytes()[:2000]):
        (tmp_path / "style.tar").write_bytes(content)
        with pytest.raises(InputError, match=r"style\.tar is damaged or not a tar file"):
            read_pictures(tmp_path / "style.tar")


def test_crops_are_the_seeds_own(pack: Path) -> None:
    crops = Crops(read_pictures(pack / "content.tar"))
    a, b, c = (crops.batch(3, 32, loop.step_generator(seed, 5)) for seed in (1, 1, 2))
    assert a.shape == (3, 3, 32, 32)
    assert a.min() >= 0 and a.max() <= 1
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_recoloured_pictures_keep_their_drawing() -> None:
    rng = torch.Generator().manual_seed(1)
    x = 0.4 + 0.2 * torch.rand(40, 3, 12, 12, generator=rng)
    assert torch.equal(data.recolored(x, rng, share=0.0), x)
    changed = data.recolored(x, rng, share=1.0)
    assert changed.min() >= 0 and changed.max() <= 1
    luminance = [torch.einsum("c,nchw->nhw", data._YIQ[0], t) for t in (x, changed)]
    for before, after in zip(*luminance, strict=True):  # contrast and brightness alone change it
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.999
    assert ((changed - x).abs().amax((1, 2, 3)) > 0.02).float().mean() > 0.9
    assert 4 < (data.recolored(x, rng) == x).all((1, 2, 3)).sum() < 28  # of 40, with a share of 0.6
    grey = 0.5 + 0.1 * torch.rand(8, 1, 6, 6, generator=rng).expand(-1, 3, -1, -1)
    turned = data.recolored(grey, rng, share=1.0)
    assert (turned - turned.mean(1, keepdim=True)).abs().max() < 2e-3  # the matrix of the NTSC is rounded to three places


def test_rate_warms_up_and_falls() -> None:
    recipe = loop.Recipe(steps=100, learning_rate=1.0, final_rate=0.1, warm_up=10)
    rates = [loop.rate(recipe, s) for s in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0) and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_a_training_that_was_stopped_and_resumed_ends_as_one_that_was_not(pack: Path, eye: Eye, tmp_path: Path) -> None:
    recipe = replace(generator.RECIPE, steps=6, warm_up=2, log_every=2)

    def trained(folder: Path, recipe: loop.Recipe) -> Generator:
        return generator.train_generator(pack, eye, folder, recipe, shape=SMALL, size=32, batch=2, warm_steps=2)

    whole = trained(tmp_path / "whole", recipe)
    clock = iter(range(0, 10**6, 20)).__next__  # every look at the clock costs 20 s, so a minute is over after a few steps
    stopped = loop.Recipe(**{**recipe.__dict__, "minutes": 1.0})
    original = generator.fit
    generator.fit = lambda *a, **k: original(*a, **k, clock=clock)  # type: ignore[assignment]
    try:
        trained(tmp_path / "parts", stopped)
    finally:
        generator.fit = original
    state = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < recipe.steps
    resumed = trained(tmp_path / "parts", recipe)
    assert torch.equal(_weights(whole), _weights(resumed))
    assert (tmp_path / "parts" / "log.csv").read_text().startswith("step,seconds,loss,")


def test_the_log_has_the_same_columns_from_warm_up_to_the_end(pack: Path, eye: Eye, tmp_path: Path) -> None:
    recipe = replace(generator.RECIPE, warm_up=1, log_every=1)
    for steps in (1, 3, 4):  # the second goes on in the warm-up, the third after it
        recipe = replace(recipe, steps=steps)
        generator.train_generator(pack, eye, tmp_path, recipe, shape=SMALL, size=32, batch=2, style_size=32, warm_steps=2)
    with (tmp_path / "log.csv").open(newline="") as f:
        header, *rows = csv.reader(f)
    assert len(header) == len(set(header)) and {len(row) for row in rows} == {len(header)}
    named = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["step"] for row in named] == ["1", "2", "3", "4"]
    assert [row["style"] == "" for row in named] == [True, True, False, False]
    assert all(float(row[name]) >= 0 for row in named[2:] for name in header)  # and none that is not a number
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_a_log_with_rows_longer_than_its_header_is_mended(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,seconds,loss,over\n20,1.0,3,4\n40,2.0,5,6,7\n60,")
    loop._log(tmp_path, 80, 3.0, {"loss": 8.0, "style": 9.0, "over": 10.0})
    with (tmp_path / "log.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [[row[c] for c in ("step", "loss", "over", "style")] for row in rows] == [
        ["20", "3", "4", ""],
        ["40", "5", "7", "6"],
        ["60", "", "", ""],
        ["80", "8", "10", "9"],
    ]


def test_what_a_checkpoint_overwrites_is_not_computed(pack: Path, eye: Eye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def standardise(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        measured.append(1)
        return torch.full((736,), 0.25), torch.full((736,), 0.5)

    monkeypatch.setattr(generator, "_standardise", standardise)
    for steps in (1, 2):
        recipe = replace(generator.RECIPE, steps=steps, warm_up=1)
        trained = generator.train_generator(pack, eye, tmp_path, recipe, shape=SMALL, size=32, batch=2)
    assert len(measured) == 1
    assert (trained.style_mean == 0.25).all() and (trained.style_std == 0.5).all()


@pytest.mark.parametrize("cut", [0, 9, 500])
def test_a_damaged_checkpoint_is_named(cut: int, tmp_path: Path) -> None:
    _fit_one(tmp_path, "0")
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"garbage\n" if cut == 9 else path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged, or of a training with other settings; remove it or give another"):
        _fit_one(tmp_path, "0")


@pytest.mark.parametrize(("found", "told"), [(OSError(28, "No space left on device"), "no space left on device"), (None, "it breaks off")])
def test_a_checkpoint_that_the_disc_does_not_hold(
    found: OSError | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch hides the system's refusal behind one of its own. The last checkpoint stays, the broken one does not."""
    _fit_one(tmp_path, "0")
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def breaks_off(state: Any, file: Any) -> None:
        file.write(b"a part")
        try:
            raise found or ValueError
        except (OSError, ValueError):
            raise RuntimeError("unexpected pos 1416640 vs 1416528")  # noqa: B904  (as PyTorch does)

    monkeypatch.setattr(torch, "save", breaks_off)
    with pytest.raises(InputError, match=rf"cannot write .*checkpoint\.pt \({told}\); free space"):
        loop._save(
            tmp_path,
            torch.nn.Linear(1, 1),
            torch.nn.Linear(1, 1),
            torch.optim.Adam([torch.nn.Parameter(torch.ones(1))]),
            {},
            1,
            loop.Recipe(1),
        )
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("other", ["1", ""])
def test_a_training_of_one_part_does_not_go_on_with_another(other: str, tmp_path: Path) -> None:
    """Layer 1 has as many parameters as layer 0, of other shapes; all of them are more."""
    _fit_one(tmp_path, "0")
    with pytest.raises(InputError, match="of a training with other settings"):
        _fit_one(tmp_path, other)


def _fit_one(folder: Path, layer: str) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    for name, p in net.named_parameters():
        p.requires_grad_(name.startswith(layer))
    loop.fit(net, lambda model, rng, step: (model(torch.ones(1, 2)).square().sum(), {}), loop.Recipe(steps=1), folder)


def test_one_block_of_the_decoder_learns_alone_and_as_a_chain_all_do(pack: Path, eye: Eye, tmp_path: Path) -> None:
    recipe = replace(decoder.RECIPE, steps=2, warm_up=1, log_every=1)
    start = loop.seeded(decoder.Decoder, 3)
    before = [_weights(start.block(k)).clone() for k in range(1, 6)]
    alone = decoder.train_decoder(pack, eye, tmp_path / "block", recipe, level=2, start=start, size=32, batch=2)
    moved = [not torch.equal(b, _weights(alone.block(k))) for k, b in enumerate(before, 1)]
    assert moved == [False, True, False, False, False]
    for p in alone.parameters():
        p.requires_grad_(True)
    chained = decoder.train_cascade(pack, eye, alone, tmp_path / "chain", recipe, size=32, batch=2)
    assert all(not torch.equal(b, _weights(chained.block(k))) for k, b in enumerate(before, 1))


@pytest.mark.parametrize("method", ["ot", "adain"])
def test_gradients_do_not_pull_at_what_the_next_map_takes_back(method: str) -> None:
    rng = torch.Generator().manual_seed(0)
    features, aim = torch.rand(1, 4, 16, 16, generator=rng), torch.rand(1, 4, 16, 16, generator=rng)
    style = decoder.measured(3 * torch.rand(1, 4, 16, 16, generator=rng))
    gains, steps = torch.ones(4, 1, 1, requires_grad=True), torch.zeros(1, 4, 16, 16, requires_grad=True)
    (decoder.fused(gains * features + steps, style, method) - aim).square().sum().backward()
    assert gains.grad is not None and steps.grad is not None
    assert steps.grad.abs().max() > 0.1
    assert gains.grad.abs().max() < 1e-2 * (steps.grad * features).abs().sum()


def test_kept_lessons_hold_what_fresh_ones_do(pack: Path, eye: Eye, tmp_path: Path) -> None:
    recipe = replace(generator.RECIPE, steps=2, warm_up=1, log_every=1)
    trained = generator.train_generator(pack, eye, tmp_path, recipe, shape=SMALL, size=32, batch=2, warm_steps=0, cache=4)
    assert torch.isfinite(_weights(trained)).all()


@pytest.mark.parametrize(
    ("only", "trained_by", "asked"), [("beyond", "only_beyond", {"beyond": 1.0}), ("look", "only_look", {"missed": torch.ones(2, 736)})]
)
def test_one_part_is_trained_and_nothing_else(
    pack: Path, eye: Eye, tmp_path: Path, only: str, trained_by: str, asked: dict[str, Any]
) -> None:
    recipe = replace(generator.RECIPE, steps=3, warm_up=1, log_every=1, ema=0.0)
    start, more = seeded_generator(), {trained_by: True}
    trained = generator.train_generator(pack, eye, tmp_path, recipe, start=seeded_generator(), size=64, batch=2, warm_steps=0, **more)
    after = trained.state_dict()
    for name, before in start.state_dict().items():
        assert torch.equal(before, after[name]) is not name.startswith(only), name
    style = torch.rand(2, 736)
    assert torch.equal(start.modulation(style), trained.modulation(style))
    assert (start.modulation(style, **asked) - trained.modulation(style, **asked)).abs().max() > 1e-5


def test_second_paintings_are_trained_along(pack: Path, eye: Eye, tmp_path: Path) -> None:
    recipe = replace(generator.RECIPE, steps=2, warm_up=1, log_every=1, ema=0.0)
    start, trained = seeded_generator(), {}
    for along in (False, True):
        more = {"start": seeded_generator(), "size": 64, "batch": 2, "warm_steps": 0}
        trained[along] = generator.train_generator(pack, eye, tmp_path / str(along), recipe, with_look=along, **more)
        assert torch.equal(trained[along].look, start.look) is not along
        assert not torch.equal(trained[along].touch2.weight, start.touch2.weight)
    # the first step is the same, the second one paints what the first painting missed
    first, second = (list(csv.DictReader((tmp_path / str(along) / "log.csv").open())) for along in (False, True))
    assert first[0]["style"] == second[0]["style"]
    assert first[1]["style"] != second[1]["style"]


def test_what_was_missed_is_the_style_less_the_paintings_own(eye: Eye) -> None:
    net, x, vectors = seeded_generator(), torch.rand(1, 3, 96, 96), torch.rand(1, 736)
    wanted = autocovariances(torch.rand(1, 3, 64, 64))
    missed = generator.missed_in(net, eye, x, net.modulation(vectors), vectors, wanted)
    with torch.no_grad():
        painted = finish(net.paint(x, net.modulation(vectors))[0], x, narrow(wanted))[0].clamp(0, 1)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
        torch.testing.assert_close(missed + generator.style_vector(eye(painted)), vectors, atol=1e-4, rtol=1e-4)


def seeded_generator() -> Generator:
    torch.manual_seed(3)
    return Generator(SMALL)


def test_settings_are_checked(pack: Path, eye: Eye, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'teacher'"):
        generator.train_generator(pack, eye, tmp_path, judge="teachr")
    with pytest.raises(UsageError, match="needs the teacher networks"):
        generator.train_generator(pack, eye, tmp_path, judge="teacher")
    for only in ({"only_beyond": True}, {"only_look": True}):
        with pytest.raises(UsageError, match="add --go-on"):
            generator.train_generator(pack, eye, tmp_path, **only)
    for part in ({"only_beyond": True}, {"only_look": True}):
        with pytest.raises(UsageError, match="--with-look trains all of the net"):
            generator.train_generator(pack, eye, tmp_path, with_look=True, start=seeded_generator(), **part)
    with pytest.raises(UsageError, match="size must be between 32 and 100000; got 24"):
        generator.missed_in(seeded_generator(), eye, torch.rand(1, 3, 24, 24), torch.rand(1, 1), torch.rand(1, 736), None)
    with pytest.raises(UsageError, match="give one of them"):
        generator.train_generator(pack, eye, tmp_path, only_beyond=True, only_look=True)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"steps": 0}, "steps must be 1 or more; got 0"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"minutes": -1.0}, "minutes must be 0 or more; got -1"),
        ({"minutes": math.nan}, "minutes must be 0 or more; got nan"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"learning_rate": math.nan}, "learning-rate must be between 0 and 1; got nan"),
    ],
)
def test_a_recipe_is_checked(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replace(generator.RECIPE, **setting)


def test_what_the_nets_cannot_take_is_refused(eye: Eye, tmp_path: Path) -> None:
    """Before the pictures are read, which are not there."""
    for setting, told in (
        ({"size": 100}, "size must be a multiple of 8, 32 at least; got 100"),
        ({"size": 0}, "got 0"),
        ({"style_size": 31}, "style-size must be 32 or more; got 31"),
        ({"batch": 1}, "batch must be 2 or more; got 1"),
        ({"cache": -1}, "cache must be 0 or more"),
        ({"content_target": math.nan}, "content-target must be between 0 and 10"),
        ({"device": "nonsense"}, "device must be cpu.*; got 'nonsense'"),
        ({"device": "cuda:99"}, "device must be cpu.*; got 'cuda:99'"),
    ):
        with pytest.raises(UsageError, match=told):
            generator.train_generator(tmp_path, eye, tmp_path, **setting)
    for setting, told in (({"size": 40}, "size must be a multiple of 16, 32 at least; got 40"), ({"batch": 1}, "batch must be 2 or more")):
        with pytest.raises(UsageError, match=told):
            decoder.train_decoder(tmp_path, eye, tmp_path, **setting)
        with pytest.raises(UsageError, match=told):
            decoder.train_cascade(tmp_path, eye, decoder.Decoder(), tmp_path, **setting)


def test_the_files_of_a_teacher_are_named(tmp_path: Path) -> None:
    for exact, name in ((True, "vgg19_to_relu3_4.safetensors"), (False, "vgg19_sixteenth_to_relu5_1.safetensors")):
        with pytest.raises(InputError, match=f"no teacher networks in .*; --teacher must name a folder with {name}"):
            Teacher(tmp_path / "nope", exact=exact)
        (tmp_path / name).write_bytes(b"garbage")
        with pytest.raises(InputError, match=f"{name} is damaged or not a safetensors file"):
            Teacher(tmp_path, exact=exact)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"photo,style\na,b\n", "has no column 'content'; a table of pairs has the columns content and style"),
        (b"content,style\n", "holds no pairs"),
        (b"\xff\xfe\x00", "is not a table in UTF-8"),
        (b"\xef\xbb\xbfcontent,style\na,b\n", "PLACE"),  # as Excel saves it
    ],
)
def test_pairs_say_what_they_need(table: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(table)
    told = told.replace("PLACE", re.escape(f"names 'a', and there is no {tmp_path / 'dev' / 'content' / 'a.jpg'}"))
    with pytest.raises(InputError, match=f"pairs.csv {told}"):
        Pairs(tmp_path / "pairs.csv", torch.nn.Identity())  # type: ignore[arg-type]


def test_style_distance_is_relative_and_zero_for_itself() -> None:
    f = [torch.rand(2, c, 8, 8) for c in (3, 5)]
    target = [judge.moments(t) for t in f]
    assert judge.style_distance(f, target, (1, 1)) == pytest.approx(0, abs=1e-6)
    # twice the features: mean off by 1, second moments by 3, whatever the features' scale
    for scale in (1.0, 1e3):
        made, wanted = [2 * scale * t for t in f], [judge.moments(scale * t) for t in f]
        assert float(judge.style_distance(made, wanted, (1, 1))) == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_and_their_gradients_are_autograds(layout: torch.memory_format) -> None:
    rng = torch.Generator().manual_seed(0)
    f = torch.rand(2, 5, 6, 7, generator=rng).contiguous(memory_format=layout).requires_grad_()
    weights = torch.rand(2, 5, generator=rng), torch.rand(2, 5, 5, generator=rng)
    flat = f.flatten(2)
    wanted = flat.mean(2), flat @ flat.mT / 42
    found = judge.moments(f)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    gradients = [torch.autograd.grad(sum((w * t).sum() for w, t in zip(weights, pair, strict=True)), f)[0] for pair in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_a_step_without_a_finite_gradient_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def loss_of(model: torch.nn.Module, rng: torch.Generator, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        loss = model(torch.ones(1, 2)).square().sum()
        return (loss * math.nan if step == 3 else loss), {"seen": 1.0}

    net = loop.seeded(lambda: torch.nn.Linear(2, 1), 0)
    trained = loop.fit(net, loss_of, loop.Recipe(steps=6, learning_rate=1e-2, warm_up=0, log_every=6), tmp_path)
    assert all(bool(torch.isfinite(p).all()) for p in [*net.parameters(), *trained.parameters()])
    assert "step 3 left out" in caplog.text
    with (tmp_path / "log.csv").open(newline="") as f:
        row = next(csv.DictReader(f))
    assert math.isfinite(float(row["loss"])) and float(row["seen"]) == pytest.approx(5 / 6)


def test_lessons_are_the_newest_and_a_resumed_run_has_the_same() -> None:
    drawn: list[float] = []

    def draw(rng: torch.Generator) -> generator.Lesson:
        v = torch.rand(1, 3, generator=rng)
        drawn.append(float(v[0, 0]))
        return generator.Lesson(v, [(torch.ones(1, 2), torch.ones(1, 2, 2))], [(v, v)])

    def batches(lessons: generator.Lessons, steps: range) -> list[torch.Tensor]:
        return [lessons.batch(3, loop.step_generator(9, step), step).vector for step in steps]

    whole = batches(generator.Lessons(draw, 5, 1), range(8))
    assert len(drawn) == len(set(drawn)) == 5 + 7 * generator.FRESH
    drawn.clear()
    resumed = batches(generator.Lessons(draw, 5, 1), range(6, 8))
    assert len(drawn) == 5 + generator.FRESH  # none that no step sees
    assert all(torch.equal(a, b) for a, b in zip(whole[6:], resumed, strict=True))


def test_the_grid_loss_sees_a_grid_and_leaves_noise_alone() -> None:
    noise = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    grid = torch.zeros(128, 128)
    grid[::4] = 0.1
    assert judge.grid_loss(noise) < 0.05 < 0.2 < judge.grid_loss(noise + grid) < judge.grid_loss(noise + 3 * grid)
    assert judge.grid_loss(torch.full((1, 3, 64, 64), 0.5)) == 0


def test_what_moves_is_the_same_scene_moved() -> None:
    scene = torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(0))
    shifts = set()
    for seed in range(8):
        first, later, moved = judge.moved_apart(scene, torch.Generator().manual_seed(seed), 5, noise=0)
        assert first.shape == later.shape == (2, 3, 54, 62)
        assert judge.motion_loss(first, later, moved, border=0) == 0
        assert judge.motion_loss(first, later, (moved[0] + 1, moved[1]), border=8) > 0.1
        shifts.add(moved)
    assert len(shifts) > 4
    assert max(abs(n) for moved in shifts for n in moved) <= 5
    noisy = judge.moved_apart(scene, torch.Generator().manual_seed(0), 5, noise=2 / 255)[1]
    still = judge.moved_apart(scene, torch.Generator().manual_seed(0), 5, noise=0)[1]
    assert 0.5 / 255 < float((noisy - still).std()) < 2.5 / 255


@pytest.mark.parametrize("side", [32, 64, 72, 128])
def test_motion_is_seen_on_crops_of_any_size(side: int) -> None:
    a, b = torch.zeros(1, 3, side, side), torch.full((1, 3, side, side), 0.25)
    for moved in ((0, 0), (judge.MOVE, -judge.MOVE)):
        assert judge.motion_loss(a, b, moved) == 0.25


def test_works_are_a_share_of_the_styles(pack: Path, eye: Eye, tmp_path: Path) -> None:
    recipe = replace(generator.RECIPE, steps=2, warm_up=1, log_every=1)
    with pytest.raises(InputError, match="no training pictures at"):
        generator.train_generator(pack, eye, tmp_path / "a", recipe, shape=SMALL, size=32, batch=2, works=tmp_path / "none")
    seen: list[int] = []
    crops = generator.Crops

    class Spy(crops):
        def __init__(self, pictures, device="cpu") -> None:
            seen.append(len(pictures))
            super().__init__(pictures, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "Crops", Spy)
        for n, works in enumerate((None, pack / "content.tar")):
            generator.train_generator(
                pack, eye, tmp_path / str(n), recipe, shape=SMALL, size=32, batch=2, works=works, style_size=40, warm_steps=0
            )
    assert seen[3] > seen[1]  # contents, styles; contents, styles and works


def test_the_balance_pulls_towards_its_target() -> None:
    balance = judge.Balance(target=0.4, weight=0.4)
    assert balance.update(0.8) > 0.4
    balance = judge.Balance(target=0.4, weight=0.4)
    assert balance.update(0.1) < 0.4
    assert judge.Balance(target=0.4, weight=0.9, pace=0.0).update(2.0) == 0.9


def test_content_that_counts_for_less_does_not_steer_the_balance(eye: Eye) -> None:
    generator, balance = Generator(SMALL), judge.Balance(target=0.1, weight=0.4)
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 96, 96, generator=rng)
    views, seeing = judge.Views(x, x, (0, 0)), judge.Judge.named("eye", eye=eye)
    modulation, target = generator.modulation(torch.rand(1, 736, generator=rng)), seeing.target(torch.rand(1, 3, 64, 64, generator=rng))
    wanted = autocovariances(torch.rand(1, 3, 64, 64, generator=rng))
    eased, parts, _ = judge.painting_loss(generator, seeing, views, modulation, target, wanted, balance, ease=4.0)
    assert balance.weight == 0.4 and parts["weight"] == 0.1
    whole, _, _ = judge.painting_loss(generator, seeing, views, modulation, target, wanted, balance)
    assert balance.weight > 0.4
    kept = (balance.weight - 0.1) * float(parts["content"]) + judge.STRUCTURE * 0.75 * float(parts["structure"])
    assert float((whole - eased).detach()) == pytest.approx(kept, rel=1e-3)


def test_commands_train_and_write_weights(pack: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    common = ["--pack", str(pack), "--steps", "2", "--batch", "2", "--size", "32", "--weights", str(weights)]
    assert run(["train", "decoder", *common, "--out", str(tmp_path / "d")]) == 0
    assert run(["train", "cascade", *common, "--out", str(tmp_path / "m")]) == 0
    written = {p.name for p in weights.iterdir()}
    assert {"decoder.safetensors", "manifest.toml", *(f"decoder{k}.onnx" for k in range(1, 6))} <= written
    shutil.copy(weight_path("eye.safetensors"), tmp_path / "decoder.safetensors")
    assert run(["train", "cascade", *common[:-1], str(tmp_path), "--out", str(tmp_path / "y")]) == 1
    assert run(["train", "cascade", "--judge", "teacher", *common, "--out", str(tmp_path / "x")]) == 2


@pytest.mark.parametrize("option", ["--out", "--weights"])
def test_where_nothing_can_be_written_is_told_before_the_training(
    option: str, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    places = {"--pack": str(pack), "--out": str(tmp_path / "out"), "--weights": str(tmp_path / "new")} | {
        option: str(tmp_path / "file" / "x")
    }
    assert run(["train", "decoder", "--steps", "1", *(part for place in places.items() for part in place)]) == 1
    assert f"{tmp_path / 'file'} is a file; give another one" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("net", ["eye.safetensors", "generator.safetensors"])
def test_a_library_for_nets_that_are_not_installed_is_refused(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be made by those that are, and fit neither."""
    Picture.from_array(np.random.default_rng(0).random((40, 40, 3))).save(tmp_path / "work.jpg")
    (tmp_path / "gallery.csv").write_text("name,title,artist,year,medium,group\nwork,,,,,\n")
    (tmp_path / "new").mkdir()
    shutil.copy(weight_path(net), tmp_path / "new" / net)
    arguments = ["train", "library", str(tmp_path), "--weights", str(tmp_path / "new")]
    assert run(arguments) == 0
    (tmp_path / "new" / net).write_bytes(b"another")
    capsys.readouterr()
    assert run(arguments) == 1
    assert f"{net} is not the net that is installed" in capsys.readouterr().err


def test_a_manifest_without_an_origin_is_damaged(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--pack", str(pack), "--steps", "1", "--batch", "2", "--size", "32", "--level", "1", "--out", str(tmp_path / "out")]
    for entry in ('["eye.onnx"]\nbytes = 1\n', "eye = 1\n"):
        (tmp_path / "manifest.toml").write_text(entry)
        assert run(["train", "decoder", *common, "--weights", str(tmp_path)]) == 1
        assert "manifest.toml is damaged (eye" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        "--steps -1",
        "--minutes -1",
        "--minutes 0",
        "--minutes nan",
        "--size 0",
        "--batch 0",
        "--learning-rate nan",
        "--seed -1",
        "--style-size 0",
        "--cache -1",
        "--content-target -1",
        "--device nonsense",
    ],
)
def test_a_wrong_setting_is_wrong_usage_and_nothing_is_written(
    wrong: str, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--pack", str(pack), "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "new")]
    assert run(["train", "generator", *places, *wrong.split()]) == 2
    assert wrong.split(maxsplit=1)[0].lstrip("-") in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("grain", [0.0, 1.0])
def test_what_is_exported_paints_as_drafts_are(grain: float, tmp_path: Path) -> None:
    """Also a product on white, of the whole page's statistics: two colours have no inverse in single precision, and it was blotted."""
    import onnxruntime as ort

    product = np.ones((256, 320, 3), np.float32)
    product[70:190, 110:210] = (0.8, 0.15, 0.2)
    target = tmp_path / "wave.onnx"
    assert run(["export", "style", "great-wave", "-o", str(target), "--grain", str(grain)]) == 0
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (painted,) = session.run(None, {"content": np.ascontiguousarray(product.transpose(2, 0, 1)[None])})
    draft = Stylizer("cpu", threads=1)(Picture.from_array(product), "great-wave", quality="draft", grain=grain, statistics="exact").pixels
    assert np.abs(painted[0].transpose(1, 2, 0) - draft).mean() < 1 / 255
    assert np.abs(painted[0].transpose(1, 2, 0) - draft).max() < 0.1


def test_export_of_a_style_runs_without_this_library(tmp_path: Path) -> None:
    import onnxruntime as ort

    target = tmp_path / "irises.onnx"
    assert run(["export", "style", "irises", "-o", str(target)]) == 0
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["content"]
    for height, width in ((33, 50), (64, 47)):
        (painted,) = session.run(None, {"content": np.random.default_rng(0).random((1, 3, height, width), np.float32)})
        assert painted.shape == (1, 3, height, width)
        assert painted.min() >= 0 and painted.max() <= 1
    assert run(["export", "style", "irises", "-o", str(target)]) == 1
    assert run(["export", "style", "irises", "-o", str(target), "--overwrite", "--grain", "4.1"]) == 2
    assert run(["export", "generator", "-o", str(tmp_path / "g.bin")]) == 2
