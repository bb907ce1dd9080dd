import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from scumble.errors import InputError, UsageError
from scumble.nets import vgg
from scumble.nets.eye import LEVELS, Eye
from scumble.nets.vgg import CONVOLUTIONS, WIDTHS, Vgg, layer_names, load_encoder, parse_spec, resolve_layer
from scumble.serve import settings
from scumble.stylizer import ENCODERS


def random_weights(architecture, classifier=True):
    """What torchvision would save, with random numbers and, so that the test is quick, only as deep as block 3."""
    rng = torch.Generator().manual_seed(1)
    weights, place, channels = {}, 0, 3
    for width, n in list(zip(WIDTHS, CONVOLUTIONS[architecture], strict=True))[:3]:
        for _ in range(n):
            weights[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3, generator=rng) * (2 / 9 / channels) ** 0.5
            weights[f"features.{place}.bias"] = torch.randn(width, generator=rng) * 0.1
            channels, place = width, place + 2
        place += 1
    if classifier:
        weights["classifier.0.weight"] = torch.zeros(2, 2)
    return weights


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(random_weights("vgg19"), path)
    return path


def reference(weights, x, last):
    """torchvision's forward pass, written out: relu after each convolution, pooling after conv1_2, conv2_2, conv3_4."""
    out = (x - torch.tensor(vgg.MEAN).view(1, 3, 1, 1)) / torch.tensor(vgg.STD).view(1, 3, 1, 1)
    for place in (0, 2, "p", 5, 7, "p", 10, 12, 14, 16):
        out = (
            F.max_pool2d(out, 2)
            if place == "p"
            else F.conv2d(out, weights[f"features.{place}.weight"], weights[f"features.{place}.bias"], padding=1)
        )
        if place == last:
            return out
        out = F.relu(out)
    return None


def test_layer_numbers_are_torchvisions():
    # places as in torchvision.models.vgg19().features and vgg16().features
    nineteen, sixteen = layer_names("vgg19"), layer_names("vgg16")
    for name, place in {"conv1_1": 0, "conv2_1": 5, "conv3_1": 10, "conv4_1": 19, "relu4_2": 22, "conv5_1": 28, "pool5": 36}.items():
        assert nineteen[place] == name
    for name, place in {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "conv5_1": 24, "pool5": 30}.items():
        assert sixteen[place] == name
    assert (len(nineteen), len(sixteen)) == (37, 31)


def test_specs():
    assert parse_spec("vgg19") == ("vgg19", LEVELS)
    assert parse_spec("VGG19:relu4_1") == ("vgg19", ("relu4_1",))
    assert parse_spec("vgg16:block5_conv1, conv3_3,block2_pool") == ("vgg16", ("relu5_1", "conv3_3", "pool2"))
    assert parse_spec("eye") == ("eye", LEVELS)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("vgg91", "unknown encoder 'vgg91'; did you mean 'vgg19'"),
        ("vgg19:rely4_1", "unknown vgg19 layer 'rely4_1'; did you mean 'relu4_1'"),
        ("vgg16:block5conv1", "did you mean 'block5_conv1'"),
        ("vgg16:relu3_4", "unknown vgg16 layer 'relu3_4'; did you mean"),
        ("vgg19:", "unknown vgg19 layer ''"),
        ("eye:relu6_1", "unknown eye level"),
        ("eye:relu4_1", "the eye gives all of its levels"),
    ],
)
def test_misspelt(spec, text):
    with pytest.raises(UsageError, match=text):
        load_encoder(spec)


def test_bad_options():
    for options, text in (
        ({"pooling": "avg"}, "unknown pooling 'avg'"),
        ({"padding": "zero"}, "did you mean 'zeros'"),
        ({"layers": ()}, "got none"),
    ):
        with pytest.raises(UsageError, match=text):
            Vgg("vgg19", **options)
    with pytest.raises(UsageError, match="unknown architecture"):
        Vgg("vgg11")


def test_is_torchvisions_forward_pass(vgg19_file):
    net = load_encoder("vgg19:conv3_1,relu1_1,block3_conv4", weights=vgg19_file, padding="zeros")
    x = torch.rand(2, 3, 32, 48)
    weights = random_weights("vgg19")
    conv3_1, relu1_1, relu3_4 = net(x)
    assert conv3_1.shape == (2, 256, 8, 12)
    torch.testing.assert_close(conv3_1, reference(weights, x, 10), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(relu1_1, F.relu(reference(weights, x, 0)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(relu3_4, F.relu(reference(weights, x, 16)), atol=1e-4, rtol=1e-4)


def test_depth_gives_the_first_taps(vgg19_file):
    net = load_encoder("vgg19:relu1_1,relu2_1,relu3_1", weights=vgg19_file)
    x = torch.rand(1, 3, 32, 32)
    first, both = net(x, 1), net(x, 2)
    assert [len(first), len(both)] == [1, 2]
    torch.testing.assert_close(both[1], net(x)[1])


def test_safetensors_is_the_same(vgg19_file, tmp_path):
    save_file(random_weights("vgg19"), tmp_path / "w.safetensors")
    x = torch.rand(1, 3, 16, 16)
    (a,) = load_encoder("vgg19:relu2_1", weights=vgg19_file)(x)
    (b,) = load_encoder("vgg19:relu2_1", weights=tmp_path / "w.safetensors")(x)
    assert torch.equal(a, b)


def test_replicated_border_shows_no_frame(vgg19_file):
    flat = torch.full((1, 3, 16, 16), 0.9)
    (replicated,) = load_encoder("vgg19:relu1_1", weights=vgg19_file)(flat)
    (zeros,) = load_encoder("vgg19:relu1_1", weights=vgg19_file, padding="zeros")(flat)
    assert (replicated - replicated[:, :, 8:9, 8:9]).abs().max() < 1e-5
    assert (zeros - zeros[:, :, 8:9, 8:9]).abs().max() > 0.1


def test_average_pooling(vgg19_file):
    net = load_encoder("vgg19:relu1_2,pool1", weights=vgg19_file, pooling="average")
    before, after = net(torch.rand(1, 3, 8, 8))
    torch.testing.assert_close(after, before.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)))


def test_frozen(vgg19_file):
    net = load_encoder("vgg19:relu2_1", weights=vgg19_file)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert resolve_layer("vgg19", "block2_conv1") == "relu2_1"


def test_unfit_weights(vgg19_file, tmp_path):
    with pytest.raises(InputError, match="no weights at"):
        load_encoder("vgg19", weights=tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"is no vgg19 in torchvision's layout: it has no features\.19"):
        load_encoder("vgg19:relu4_1", weights=vgg19_file)
    with pytest.raises(InputError, match=r"is no vgg16: features\.16|is no vgg16 .* no features"):
        load_encoder("vgg16:relu4_1", weights=vgg19_file)
    with pytest.raises(InputError, match="does not hold the eye's weights"):
        load_encoder("eye", weights=vgg19_file)
    for name in ("page.pth", "page.safetensors"):
        (tmp_path / name).write_text("<!doctype html><title>moved</title>")
        with pytest.raises(InputError, match="can't be read as weights"):
            load_encoder("vgg19", weights=tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list"):
        load_encoder("vgg19", weights=tmp_path / "list.pth")


def test_pickled_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"features.0.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match="can't be read as weights"):
        load_encoder("vgg19", weights=tmp_path / "bomb.pth")


def test_offline_names_file_and_address(tmp_path, monkeypatch):
    monkeypatch.setenv("SCUMBLE_CACHE", str(tmp_path))
    with pytest.raises(InputError) as e:
        load_encoder("vgg16", offline=True)
    assert str(tmp_path / "vgg16-397923af.pth") in str(e.value)
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in str(e.value)


def test_downloads_are_named_after_their_hash():
    for url, sha256 in vgg.SOURCES.values():
        assert len(sha256) == 64
        assert url.endswith(f"-{sha256[:8]}.pth")


def test_eye(tmp_path):
    eye = Eye()
    save_file({k: v.contiguous() for k, v in eye.state_dict().items()}, tmp_path / "eye.safetensors")
    loaded = load_encoder("eye", weights=tmp_path / "eye.safetensors")
    x = torch.rand(1, 3, 32, 32)
    for a, b in zip(loaded(x), eye(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_who_does_without_pytorch_knows_the_same_encoders():
    assert set(ENCODERS) == {"eye", *CONVOLUTIONS}
    assert set(settings.ENCODERS) == set(CONVOLUTIONS)
