"""The border between the two worlds: what PyTorch computes from the safetensors files, ONNX Runtime computes from the ONNX files."""

import numpy as np
import pytest

from scumble.weights import FOLDER, sha256, weight_path

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'scumble[torch]'")
pytest.importorskip("onnx", reason="needs onnx: pip install 'scumble[torch]'")
ort = pytest.importorskip("onnxruntime")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from scumble.nets.decoder import Decoder  # noqa: E402
from scumble.nets.eye import LEVELS, WIDTHS, Eye  # noqa: E402
from scumble.nets.generator import Generator, Shape  # noqa: E402
from scumble.train import export  # noqa: E402

# torch's old exporter, which is the one that keeps free sizes, announces its end in many words
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Constant folding:UserWarning")

TINY = Shape(half=4, quarter=6, eighth=8, blocks=1, rank=2, style=10, hidden=12)


def run(path, **feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(np.array(out)) for out in session.run(None, {k: v.numpy() for k, v in feeds.items()})]


def stored(module, path):
    module.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return module.eval()


def agree(got, expected):
    """Within 1e-4, of the largest number where that is above 1: what single precision can hold through so many layers."""
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    assert (got - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["shipped", "fresh"])
def eye(request, tmp_path_factory):
    folder = FOLDER
    if request.param == "fresh":
        folder = tmp_path_factory.mktemp("eye")
        export.export_eye(Eye(), folder)
    return folder


@torch.no_grad()
def test_the_eye(eye):
    x = draw(1, 3, 48, 32)
    taps = run(eye / "eye.onnx", pixels=x)
    for got, expected in zip(taps, stored(Eye(), eye / "eye.safetensors")(x), strict=True):
        agree(got, expected)


@torch.no_grad()
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_decoders(level):
    x = draw(1, WIDTHS[level - 1], 6, 5)
    decoder = stored(Decoder(), weight_path("decoder.safetensors"))
    agree(run(weight_path(f"decoder{level}.onnx"), features=x)[0], decoder.block(level)(x))


@torch.no_grad()
def test_the_generator():
    g = stored(Generator(), weight_path("generator.safetensors"))
    x, style = draw(1, 3, 42, 58), draw(1, g.shape.style, seed=1)
    missed = draw(1, 736, seed=3) * 0.3
    modulation = g.modulation(style, beyond=0.6, missed=missed)
    assert (modulation - g.modulation(style, missed=missed)).abs().max() > 0.01
    assert (modulation - g.modulation(style, beyond=0.6)).abs().max() > 0.01
    agree(run(weight_path("modulator.onnx"), style=style, beyond=torch.full((1, 1), 0.6), missed=missed)[0], modulation)
    for freeze in (0.0, 0.3, 1.0):
        frozen = g.paint(draw(1, 3, 24, 24, seed=2), modulation)[1]
        share, inside = torch.full((g.statistics,), freeze), torch.tensor([1, 4, 0, 6])
        feeds = {"content": x, "modulation": modulation, "frozen": frozen, "freeze": share, "inside": inside}
        wanted = g.paint(x, modulation, frozen, share, inside, shuffled=False, ringed=True)
        for got, expected in zip(run(weight_path("generator.onnx"), **feeds), wanted, strict=True):
            agree(got, expected)


@torch.no_grad()
def test_a_generator_of_another_shape(tmp_path):
    g = Generator(TINY)
    g.style_mean.copy_(draw(10, seed=3))
    g.style_std.copy_(draw(10, seed=4))
    g.style_std[0] = 1e-9  # a channel at rest; in half precision it would be 0
    export.export_generator(g, tmp_path)
    x, style = draw(1, 3, 50, 66), draw(1, 10)
    again = stored(Generator(TINY), tmp_path / "generator.safetensors")
    assert torch.equal(again.style_mean, g.style_mean)
    assert torch.equal(again.style_std, g.style_std)
    modulation = again.modulation(style)
    agree(run(tmp_path / "modulator.onnx", style=style, beyond=torch.zeros(1, 1), missed=torch.zeros_like(style))[0], modulation)
    frozen = torch.zeros(1, g.statistics)
    feeds = {"freeze": torch.zeros(g.statistics), "inside": torch.tensor([0, 6, 0, 8])}
    cells, statistics = run(tmp_path / "generator.onnx", content=x, modulation=modulation, frozen=frozen, **feeds)
    for got, expected in zip((cells, statistics), again.paint(x, modulation, shuffled=False, ringed=True), strict=True):
        agree(got, expected)


def test_both_files_hold_the_same_numbers(tmp_path):
    import onnx
    from onnx import numpy_helper

    export.export_eye(Eye((2, 3, 4, 5, 6)), tmp_path)
    model = onnx.load(tmp_path / "eye.onnx")
    kernels = [numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) == 4]
    tensors = load_file(tmp_path / "eye.safetensors")
    assert {k.dtype for k in kernels} == {np.dtype(np.float16)}
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    ours = sorted(float(t.float().sum()) for t in tensors.values() if t.ndim == 4)
    assert sorted(float(k.astype(np.float32).sum()) for k in kernels) == pytest.approx(ours, rel=1e-5)


def test_the_files_say_what_comes_out_of_them():
    session = ort.InferenceSession(str(weight_path("eye.onnx")), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == list(LEVELS)
    with safe_open(str(weight_path("generator.safetensors")), framework="np") as f:
        assert f.metadata()["format"] == "pt"


def test_the_manifest_that_is_written(tmp_path, monkeypatch):
    from scumble import weights

    export.export_eye(Eye((2, 2, 2, 2, 2)), tmp_path)
    export.write_manifest({"eye": "made of nothing"}, tmp_path)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    entries = weights.manifest()
    assert set(entries) == {"eye.onnx", "eye.safetensors"}
    assert entries["eye.onnx"].sha256 == sha256(tmp_path / "eye.onnx")
    assert entries["eye.onnx"].origin == "made of nothing"
    assert weights.damaged() == []
    (tmp_path / "eye.onnx").write_bytes(b"something else")
    (tmp_path / "eye.safetensors").unlink()
    assert weights.damaged() == ["eye.onnx", "eye.safetensors"]
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_the_origin_in_a_manifest_may_hold_any_sign(tmp_path):
    from scumble.weights import tomllib

    (tmp_path / "eye.onnx").touch()
    for origin in ('a"b\\c', "tab\t, line\n, \x01, \x7f", "peinture é 🖌"):
        export.write_manifest({"eye": origin}, tmp_path)
        assert tomllib.loads((tmp_path / "manifest.toml").read_text("utf-8"))["eye.onnx"]["origin"] == origin
    export.write_manifest({"eye": "no character: \udcff"}, tmp_path)
    assert tomllib.loads((tmp_path / "manifest.toml").read_text("utf-8"))["eye.onnx"]["origin"] == "no character: ?"


def test_a_file_that_the_disc_does_not_hold_is_named(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*eye\.onnx'"):
        export.replace_file(tmp_path / "eye.onnx", b"")


def test_a_file_that_appears_meanwhile_is_not_replaced_and_a_link_is_written_through(tmp_path, monkeypatch, capsys):
    from scumble.cli import run as scumble

    out = tmp_path / "out.onnx"

    def made(path, *_):
        path.write_bytes(b"net")
        out.touch()
        return 0.0

    monkeypatch.setattr(export, "export_self_contained", made)
    assert scumble(["export", "generator", "-o", str(out)]) == 1
    assert "out.onnx exists already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    assert out.read_bytes() == b""
    (tmp_path / "link.onnx").symlink_to(out)
    assert scumble(["export", "generator", "-o", str(tmp_path / "link.onnx"), "--overwrite"]) == 0
    assert (tmp_path / "link.onnx").is_symlink()
    assert out.read_bytes() == b"net"
