"""The fit to the photograph: what its colours explain stays, what does not goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scumble import finish, guided, metrics
from scumble.engine import Engine
from scumble.pyramid import halved, means
from scumble.style import Style


def noise(seed, height=23, width=31):
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def test_means_of_cells_at_the_end_are_of_what_there_is():
    pixels = np.random.default_rng(0).random((40, 21, 3), dtype=np.float32)
    found = means(pixels, 16)
    assert found.shape == (3, 3, 2)
    for row, rows in enumerate((slice(0, 16), slice(16, 32), slice(32, 40))):
        for column, columns in enumerate((slice(0, 16), slice(16, 21))):
            np.testing.assert_allclose(found[:, row, column], pixels[rows, columns].mean((0, 1)), rtol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40))
def test_halved_the_next_pixel_has_a_say(height, width):
    pixels = np.random.default_rng(height).random((2, height, width), dtype=np.float32)
    rows, columns = (np.clip(np.arange(-1, n + 2), 0, n - 1) for n in (height, width))
    wide = pixels[:, rows][:, :, columns]
    taps = np.array([1, 3, 3, 1]) / 8
    expected = [
        [(wide[:, y : y + 4, x : x + 4] * np.outer(taps, taps)).sum((1, 2)) for x in range(0, width, 2)] for y in range(0, height, 2)
    ]
    np.testing.assert_allclose(halved(pixels), np.transpose(expected, (2, 0, 1)), atol=1e-6)


@given(st.integers(1, 70), st.integers(1, 70))
def test_a_guide_has_as_many_cells_as_the_coarsest_scale_halved(height, width):
    coarsest = np.zeros((3, height, width), np.float32)
    for _ in range(finish.SCALES):
        coarsest = finish.halved(coarsest)
    assert guided.guide(np.zeros((height, width, 3), np.float32)).shape == coarsest.shape


def test_what_the_photograph_explains_stays():
    g = noise(1)
    matrix, offset = np.array([[0.5, 0.2, -0.1], [0.0, -0.8, 0.3], [0.1, 0.1, 0.6]], np.float32), np.array([0.1, 0.9, 0.2], np.float32)
    painted = np.einsum("pc,chw->phw", matrix, g) + offset[:, None, None]
    np.testing.assert_allclose(guided.fitted(painted, g), painted, atol=2e-3)  # the ridge is 1e-4 beside a variance of 0.08


def test_where_the_photograph_is_flat_the_mean_of_a_window_is_left():
    painted = noise(2)
    found = guided.fitted(painted, np.full_like(painted, 0.3))
    w = guided.WINDOW
    np.testing.assert_allclose(found[:, 9, 14], painted[:, 9 - w : 10 + w, 14 - w : 15 + w].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(found[:, 0, 0], painted[:, : 1 + w, : 1 + w].mean((1, 2)), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 22), st.integers(0, 30), st.integers(0, 1000))
def test_it_is_ridge_regression_in_every_window(row, column, seed):
    g, p = noise(seed).astype(np.float64), noise(seed + 1).astype(np.float64)
    w = guided.WINDOW
    window = np.s_[:, max(0, row - w) : row + w + 1, max(0, column - w) : column + w + 1]
    x, y = g[window].reshape(3, -1), p[window].reshape(3, -1)
    x_mean, y_mean = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
    x, y = x - x_mean, y - y_mean
    weights = np.linalg.solve(x @ x.T / x.shape[1] + guided.RIDGE * np.eye(3), x @ y.T / x.shape[1])
    expected = y_mean[:, 0] + weights.T @ (g[:, row, column] - x_mean[:, 0])
    np.testing.assert_allclose(guided.fitted(p.astype(np.float32), g.astype(np.float32))[:, row, column], expected, atol=1e-5)


def test_no_cell_sees_farther_than_a_window():
    g, p = noise(3), noise(4)
    before = guided.fitted(p, g)
    for changed in (0, 1):
        both = [g.copy(), p.copy()]
        both[changed][:, 11, 15] = 0.9
        moved = np.abs(guided.fitted(both[1], both[0]) - before).max(0) > 1e-6
        rows, columns = np.nonzero(moved)
        assert (rows.min(), rows.max()) == (11 - guided.WINDOW, 11 + guided.WINDOW)
        assert (columns.min(), columns.max()) == (15 - guided.WINDOW, 15 + guided.WINDOW)


def roofs(height=256, width=320):
    """A flat sky over dark houses, (H, W, 3)."""
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:] = (0.55, 0.75, 0.9)
    for left, top in ((0, 170), (64, 120), (150, 150), (230, 100)):
        pixels[top:, left : left + 80] = (0.25, 0.12 + left / 2000, 0.1)
    return pixels


def test_a_rim_around_an_edge_goes():
    g = guided.guide(roofs())
    colors = np.where(g[:1] > 0.4, 0.8, 0.2).repeat(3, 0).astype(np.float32)
    rim = np.zeros_like(g)
    sky = g[0] > 0.5
    rim[:, :-1][:, sky[:-1] & ~sky[1:]] = 0.15
    left = guided.fitted(colors + rim, g) - guided.fitted(colors, g)
    assert np.abs(left[rim > 0]).mean() < 0.5 * 0.15  # what a roof's edge explains beside the sky's is part of the fit


@pytest.mark.parametrize("wide", [False, True])
def test_paintings_have_less_of_a_halo_than_they_had(monkeypatch, wide):
    engine, pixels = Engine("cpu", threads=1), roofs()
    modulations = [Style.named(name).modulation(engine, wide=wide) for name in ("great-wave", "irises", "large-blue-horses")]

    def halo():
        return np.mean([metrics.halo(engine.paint(pixels, m)[0], pixels) for m in modulations])

    now = halo()
    monkeypatch.setattr(guided, "fitted", lambda painted, _guide: painted)
    assert now < 0.7 * halo()


@given(st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=20, deadline=None)
def test_in_pytorch_it_is_the_same(height, width):
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    from scumble.nets import guided as in_pytorch

    content, painted = np.random.default_rng(height + 100 * width).random((2, height, width, 3), dtype=np.float32)
    photograph, p = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (content, painted))
    cells = in_pytorch.guide(p)
    np.testing.assert_allclose(cells[0].numpy(), guided.guide(painted), rtol=1e-5)
    expected = guided.fitted(cells[0].numpy(), guided.guide(content)) - cells[0].numpy()
    fit = in_pytorch.Fit(photograph)
    np.testing.assert_allclose(fit(cells, 1)[0].numpy(), expected, atol=2e-6)
    enlarged = fit(cells, guided.CELL)[0].numpy()
    assert enlarged.shape == (3, *(guided.CELL * n for n in expected.shape[1:]))
    # two middles of cells lie half a pixel beside a pixel's
    steps = np.abs(np.diff(expected, axis=1)).max(initial=0) + np.abs(np.diff(expected, axis=2)).max(initial=0)
    assert np.abs(enlarged[:, 8::16, 8::16] - expected).max() <= steps / 16 + 1e-6
