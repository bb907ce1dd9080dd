from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scumble.nets.losses import (
    STYLE_LOSSES,
    Statistics,
    content_loss,
    mean_moment_loss,
    mean_std_loss,
    second_moment_loss,
    sliced_wasserstein,
    structure_loss,
    total_variation,
    wasserstein2,
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_moments(mean, covariance, n=400, seed=0):
    """Features (1, C, 20, n / 20) whose empirical moments are exactly these."""
    mean, covariance = torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64)
    f = draw(len(mean), n, seed=seed)
    f = f - f.mean(1, keepdim=True)
    f = torch.linalg.solve(torch.linalg.cholesky(f @ f.T / n), f)
    return (torch.linalg.cholesky(covariance) @ f + mean[:, None]).view(1, len(mean), 20, n // 20)


def statistics(mean, covariance):
    return Statistics.from_moments(SimpleNamespace(mean=np.array(mean), covariance=np.array(covariance)), dtype=torch.float64)


def checkerboard(h, w):
    return ((torch.arange(h)[:, None] + torch.arange(w)) % 2).double()[None, None]


def test_statistics_of_known_maps():
    # two channels over four positions, counted by hand
    f = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 0.0]]).view(1, 2, 2, 2)
    s = Statistics.measure(f)
    torch.testing.assert_close(s.mean, torch.tensor([[2.5, 0.5]]))
    torch.testing.assert_close(s.covariance, torch.tensor([[[1.25, -0.5], [-0.5, 0.25]]]))
    torch.testing.assert_close(s.second_moment, torch.tensor([[[7.5, 0.75], [0.75, 0.5]]]))


def test_statistics_from_numpy_are_those_measured():
    f = draw(1, 3, 7, 5)
    points = f.view(3, -1).numpy()
    s = statistics(points.mean(1), np.cov(points, bias=True))
    torch.testing.assert_close(s.covariance, Statistics.measure(f).covariance)
    torch.testing.assert_close(s.second_moment, (f.flatten(2) @ f.flatten(2).mT) / 35)


def test_memory_format_does_not_matter():
    f = draw(2, 4, 6, 8, dtype=torch.float32)
    a, b = Statistics.measure(f), Statistics.measure(f.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(a.covariance, b.covariance)


def test_means_count_as_much_as_second_moments():
    f = with_moments([3.0, 4.0], [[1.0, 0.0], [0.0, 1.0]])
    # means off by (-3, -4) of (6, 8): a quarter; second moments [[10, 12], [12, 17]] for [[37, 48], [48, 65]]
    target = statistics([6.0, 8.0], [[1.0, 0.0], [0.0, 1.0]])
    moments = (27**2 + 2 * 36**2 + 48**2) / (37**2 + 2 * 48**2 + 65**2)
    assert float(mean_moment_loss(f, target)) == pytest.approx(0.25 + moments, rel=1e-6)


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_style_losses_vanish_for_identical(name):
    f = draw(2, 5, 9, 8).relu() + 0.1
    loss = STYLE_LOSSES[name](f, Statistics.measure(f))
    assert abs(float(loss)) < 1e-9


@pytest.mark.parametrize("name", STYLE_LOSSES)
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_style_losses_have_no_scale(name, factor):
    f, t = draw(1, 5, 9, 8).relu(), draw(1, 5, 6, 7, seed=1).relu() + 0.5
    loss = STYLE_LOSSES[name]
    assert float(loss(f * factor, Statistics.measure(t * factor))) == pytest.approx(float(loss(f, Statistics.measure(t))), rel=1e-5)


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_style_losses_average_over_the_batch(name):
    f, t = draw(2, 4, 6, 5), Statistics.measure(draw(1, 4, 8, 8, seed=1))
    loss = STYLE_LOSSES[name]
    assert float(loss(f, t)) == pytest.approx((float(loss(f[:1], t)) + float(loss(f[1:], t))) / 2)


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_style_loss_gradients(name):
    target = Statistics.measure(draw(1, 3, 5, 5, seed=1))
    f = draw(2, 3, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: STYLE_LOSSES[name](x, target), f)


@pytest.mark.parametrize("name", STYLE_LOSSES)
def test_style_losses_survive_what_pictures_do(name):
    """Dead channels, constant maps, a single position, coinciding eigenvalues, a target of zeros: finite, and so is the gradient."""
    ordinary = draw(1, 4, 6, 6, dtype=torch.float32).relu()
    dead = ordinary * torch.tensor([1.0, 0, 0, 1]).view(1, 4, 1, 1)
    cases = [dead, torch.ones(1, 4, 6, 6), torch.zeros(1, 4, 6, 6), ordinary[..., :1, :1], with_moments([0] * 4, np.eye(4)).float()]
    for case in cases:
        for t in [ordinary, *cases]:
            f = case.detach().clone().requires_grad_()
            loss = STYLE_LOSSES[name](f, Statistics.measure(t))
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(f.grad).all()


def test_half_precision_is_summed_in_single():
    # 300² · 4096 positions overflows float16 (65504) if it is summed in it
    f = torch.full((1, 2, 64, 64), 300.0, dtype=torch.float16)
    assert float(second_moment_loss(f, Statistics.measure(f))) == 0


def test_second_moment_known():
    # M = diag(1, 4) against M' = diag(4, 4): (3² ) / (4² + 4²)
    f = with_moments([0, 0], [[1, 0], [0, 4]])
    assert float(second_moment_loss(f, statistics([0, 0], [[4, 0], [0, 4]]))) == pytest.approx(9 / 32)
    # the mean is in it: M' = Σ + μμᵀ
    assert float(second_moment_loss(f, statistics([1, 0], [[0, 0], [0, 4]]))) == pytest.approx(0)


def test_mean_std_known():
    # means 0 and 3, deviations 1 and 2: (3² + 1²) / (3² + 2²)
    assert float(mean_std_loss(with_moments([0], [[1]]), statistics([3], [[4]]))) == pytest.approx(10 / 13, rel=1e-5)


def test_wasserstein_of_commuting_gaussians():
    # for diagonal covariances W2² = ‖Δμ‖² + Σ(σ − σ')² = 4 + (1−3)² + (2−1)²; energy 4 + 9 + 1
    f = with_moments([0, 0], [[1, 0], [0, 4]])
    assert float(wasserstein2(f, statistics([2, 0], [[9, 0], [0, 1]]))) == pytest.approx(9 / 14, rel=1e-5)


def test_wasserstein_of_gaussians_that_do_not_commute():
    a, b = np.array([[2, 1.2], [1.2, 1]]), np.array([[1, -0.5], [-0.5, 3]])
    # in two dimensions tr √A = √(tr A + 2 √det A), and (b^½ a b^½) has trace tr(ab) and determinant det a · det b
    overlap = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    expected = (np.trace(a) + np.trace(b) - 2 * overlap) / np.trace(b)
    assert float(wasserstein2(with_moments([0, 0], a), statistics([0, 0], b))) == pytest.approx(expected, rel=1e-5)


def test_wasserstein_is_lower_than_the_distance_of_any_map():
    """Moving by a rotation also reaches the target's moments, at a higher price than the optimal map's."""
    f = with_moments([0, 0], [[4, 0], [0, 1]])
    rotated = with_moments([0, 0], [[1, 0], [0, 4]])
    assert float(wasserstein2(f, Statistics.measure(rotated))) == pytest.approx(2 / 5, rel=1e-5)


def test_content_loss():
    f = draw(1, 3, 12, 10)
    assert float(content_loss(f, f)) == 0
    # contrast and colour of a channel are no content
    other = f * torch.tensor([2.0, 0.5, 7]).view(1, 3, 1, 1) + torch.tensor([1.0, -4, 2]).view(1, 3, 1, 1)
    assert float(content_loss(f, other)) < 1e-5  # not 0: the floor under the variance
    assert float(content_loss(f, -f)) == pytest.approx(4, rel=1e-3)
    unrelated = content_loss(draw(1, 3, 100, 100), draw(1, 3, 100, 100, seed=1))
    assert float(unrelated) == pytest.approx(2, abs=0.05)
    target = draw(1, 2, 4, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: content_loss(x, target), draw(2, 2, 4, 4).requires_grad_())


def test_content_loss_of_constant_features_is_finite():
    f = torch.ones(1, 3, 4, 4, requires_grad=True)
    content_loss(f, draw(1, 3, 4, 4, dtype=torch.float32)).backward()
    assert torch.isfinite(f.grad).all()


def test_total_variation():
    assert float(total_variation(checkerboard(6, 8))) == 2
    # one step of height 1 between 4 columns: a third of the horizontal pairs
    assert float(total_variation(torch.tensor([0.0, 0, 1, 1]).expand(1, 3, 5, 4))) == pytest.approx(1 / 3)
    assert float(total_variation(torch.ones(2, 3, 5, 5))) == 0
    assert float(total_variation(torch.rand(1, 3, 1, 1))) == 0
    assert float(total_variation(checkerboard(1, 7))) == 1


def test_sliced_wasserstein():
    rng = torch.Generator().manual_seed(0)
    f = draw(1, 3, 8, 8)
    shuffled = f.flatten(2)[:, :, torch.randperm(64, generator=rng)].view_as(f)
    assert float(sliced_wasserstein(f, shuffled, rng)) == pytest.approx(0, abs=1e-12)
    # one channel: every direction is ±1, and moving all by 1 costs 1, relative to the target's mean square
    one = draw(1, 1, 8, 8)
    assert float(sliced_wasserstein(one + 1, one, rng)) == pytest.approx(float(1 / one.square().mean()))
    # it sees what two moments don't: a Gaussian and two points of equal variance
    two_points = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(500).view(1, 1, 20, 50)
    assert float(sliced_wasserstein(with_moments([0], [[1]], n=1000), two_points, rng)) > 0.1
    assert float(sliced_wasserstein(f, draw(1, 3, 5, 7, seed=1), rng)) >= 0


def test_sliced_wasserstein_draws_by_its_generator():
    f, t = draw(1, 3, 8, 8), draw(1, 3, 8, 8, seed=1)
    a, b, c = (float(sliced_wasserstein(f, t, torch.Generator().manual_seed(s))) for s in (3, 3, 4))
    assert a == b != c


def test_structure_is_where_things_are_and_not_how_strong():
    f = draw(2, 4, 24, 24).abs()
    assert float(structure_loss(f, f)) == pytest.approx(0, abs=1e-9)
    assert float(structure_loss(7 * f + 3, f)) == pytest.approx(0, abs=1e-4)
    assert float(structure_loss(f.flip(3), f)) > 0.1


def test_one_colour_does_not_pull_harder_than_pictures_do():
    def pull(features):
        features.requires_grad_()
        return float(torch.autograd.grad(structure_loss(features, target), features)[0].abs().max())

    target = draw(1, 64, 48, 48).abs()
    flat = torch.full((1, 64, 48, 48), 0.7, dtype=torch.float64) + 1e-7 * draw(1, 64, 48, 48, seed=1)
    assert pull(flat) < 100 * pull(draw(1, 64, 48, 48, seed=2).abs())
