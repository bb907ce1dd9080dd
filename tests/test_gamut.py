"""Colours that a style has not are drawn back towards those that it has; all others, and lightness, stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scumble import finish, gamut, guided
from scumble.engine import Engine

LUMA = np.array([gamut.RED, gamut.GREEN, gamut.BLUE])
UPPER = np.triu_indices(3)


def drawn_back(colors, style, share=gamut.SHARE):
    """Of colours (N, 3) into the gamut of a style's (M, 3)."""
    found = gamut.drawn_back(colors.T, style.mean(0).tolist(), np.cov(style.T)[UPPER].tolist(), share)
    return np.stack(found, 1)


def deviations(colors, style):
    """How far colours lie from the style's of their lightness, by way of a regression and an inverse."""
    x = np.column_stack([style @ LUMA, style[:, 0] - style @ LUMA, style[:, 2] - style @ LUMA])
    y = np.column_stack([colors @ LUMA, colors[:, 0] - colors @ LUMA, colors[:, 2] - colors @ LUMA])
    covariance = np.cov(x.T)
    slope = covariance[0, 1:] / covariance[0, 0]
    left = covariance[1:, 1:] - np.outer(slope, slope) * covariance[0, 0]
    apart = y[:, 1:] - x[:, 1:].mean(0) - (y[:, :1] - x[:, 0].mean()) * slope
    return np.sqrt(np.einsum("ni,ij,nj->n", apart, np.linalg.inv(left), apart))


@pytest.fixture
def style():
    rng = np.random.default_rng(3)
    return np.clip(0.5 + 0.5 * rng.normal(size=(4000, 3)) @ (rng.normal(size=(3, 3)) * 0.4 + np.eye(3)), -1, 2)


def test_colors_of_the_style_stay_and_others_keep_a_quarter_of_what_is_beyond(style, monkeypatch):
    monkeypatch.setattr(gamut, "RIDGE", 0.0)
    colors = np.random.default_rng(4).uniform(-1, 2, (500, 3))
    found = drawn_back(colors, style)
    before, after = deviations(colors, style), deviations(found, style)
    inside = before < gamut.LIMIT
    assert 50 < inside.sum() < 450
    np.testing.assert_allclose(found[inside], colors[inside], atol=1e-12)
    np.testing.assert_allclose(after[~inside], gamut.LIMIT + (1 - gamut.SHARE) * (before[~inside] - gamut.LIMIT), rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.floats(0, 1))
def test_lightness_stays_whatever_is_drawn_back(seed, share):
    rng = np.random.default_rng(seed)
    colors = rng.uniform(0, 1, (50, 3))
    found = drawn_back(colors, 0.05 * rng.normal(size=(30, 3)) + rng.uniform(0, 1, 3), share)
    np.testing.assert_allclose(found @ LUMA, colors @ LUMA, atol=1e-9)
    if share == 0:
        np.testing.assert_allclose(found, colors, atol=1e-12)


def test_a_grey_style_and_one_of_a_single_color_leave_numbers(style):
    grey = np.repeat(np.linspace(0, 1, 100)[:, None], 3, 1)
    colors = np.random.default_rng(0).uniform(0, 1, (200, 3))
    for few in (grey, grey[:1].repeat(5, 0)):
        found = drawn_back(colors, few, share=1.0)
        assert np.isfinite(found).all()
        assert np.abs(found - (found @ LUMA)[:, None]).max() < 0.06  # two standard deviations of 0.01, and green's part of both
    assert np.isfinite(drawn_back(grey, style)).all()


def test_arrays_and_tensors_come_out_alike(style):
    torch = pytest.importorskip("torch")
    colors = np.random.default_rng(5).uniform(-1, 2, (64, 3))
    mean, covariance = style.mean(0), np.cov(style.T)[UPPER]
    found = gamut.drawn_back(torch.tensor(colors.T), torch.tensor(mean), torch.tensor(covariance))
    np.testing.assert_allclose(np.stack(found, 1), drawn_back(colors, style), atol=1e-12)


@pytest.fixture(scope="module")
def engine():
    return Engine("cpu", threads=1)


def scene(seed, saturation=0.1, height=160, width=192):
    """Broad patches of nearly grey, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    light = rng.uniform(0.2, 0.8, (height // 16, width // 16, 1)) + saturation * rng.normal(size=(height // 16, width // 16, 3))
    return np.clip(np.kron(light, np.ones((16, 16, 1))) + 0.02 * rng.normal(size=(height, width, 3)), 0, 1).astype(np.float32)


@pytest.mark.parametrize("patch", [finish.NARROW, finish.WIDE])
def test_a_loud_patch_comes_out_less_so_and_the_rest_nearly_as_it_did(engine, monkeypatch, patch):
    content, style = scene(1, 0.02), finish.texture(scene(2))
    wanted = style if patch == finish.WIDE else finish.narrow(style)
    content[64:80, 80:96] = 0.9, 0.1, 0.2

    def painted():
        cells = finish.Cells.of(np.ascontiguousarray(content.transpose(2, 0, 1)))
        found, _ = finish.finish(cells, guided.guide(content), wanted, engine)
        return found.transpose(1, 2, 0)

    def chroma(pixels):
        return float(np.ptp(pixels, axis=-1).mean())

    quiet = painted()
    monkeypatch.setattr(gamut, "SHARE", 0.0)
    loud = painted()
    assert chroma(quiet[66:78, 82:94]) < 0.85 * chroma(loud[66:78, 82:94])
    away = np.ones(content.shape[:2], bool)
    away[40:104, 56:120] = False
    assert abs(chroma(quiet[away]) - chroma(loud[away])) < 0.02


def test_what_frozen_filters_hold_is_drawn_back_too(engine):
    content, wanted = scene(1, 0.3), finish.texture(scene(2))
    cells, guide = finish.Cells.of(np.ascontiguousarray(content.transpose(2, 0, 1))), guided.guide(content)
    painted, filters = finish.finish(cells, guide, wanted, engine)
    assert filters[-1] == np.float32(gamut.SHARE)
    again, _ = finish.finish(finish.Cells.of(np.ascontiguousarray(content.transpose(2, 0, 1))), guide, None, engine, filters)
    np.testing.assert_allclose(again, painted, atol=1e-5)
    filters[-1] = 0
    other, _ = finish.finish(finish.Cells.of(np.ascontiguousarray(content.transpose(2, 0, 1))), guide, None, engine, filters)
    assert np.abs(other - painted).max() > 0.02


@pytest.mark.parametrize("freeze", [0.0, 0.25, 1.0])
def test_half_of_the_finish_draws_back_half_as_much(freeze):
    filters, wanted = finish.unchanging(finish.WIDE), finish.texture(scene(2))
    finish.set_gamut(filters, wanted, freeze)
    assert filters[-1] == pytest.approx((1 - freeze) * gamut.SHARE)
    if freeze < 1:
        row = finish.scales(wanted)[finish.GAMUT_SCALE]
        np.testing.assert_allclose(filters[-finish.GAMUT : -7], row[:3])
        np.testing.assert_allclose(filters[-7:-1], row[[3, 4, 5, 7, 8, 11]])
