"""The descent: curvature that was met is used, and what can't be trusted is not."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from scumble.nets.descent import LONGEST, Descent  # noqa: E402


def valley(dimensions=40, condition=1e4):
    """A quadratic whose axes are not the coordinates': (loss, gradient) of a point."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator))[0]
    matrix = turn @ torch.diag(torch.logspace(0, 4, dimensions) * condition / 1e4) @ turn.T
    return lambda x: (float(x @ matrix @ x) / 2, matrix @ x)


def descended(of, steps, **settings):
    """Of one group of numbers, the losses."""
    x, losses = torch.ones(40), []
    descent = Descent([x], [0.03], **settings)
    for _ in range(steps):
        loss, gradient = of(x)
        losses.append(loss)
        descent.step([gradient], loss)
    return losses


def test_a_long_valley_is_gone_down_in_few_steps():
    losses = descended(valley(), 150)
    x = torch.ones(40, requires_grad=True)
    adam = torch.optim.Adam([x], lr=0.03, betas=(0.7, 0.7))
    for _ in range(150):
        x.grad = valley()(x.detach())[1]
        adam.step()
    assert losses[-1] < 1e-3 * losses[0]
    assert losses[-1] < 0.1 * valley()(x.detach())[0]


def test_more_memory_is_better_and_some_is_enough():
    few, many = (descended(valley(), 120, pairs=n)[-1] for n in (1, 20))
    assert many < few


def test_the_first_step_is_as_long_as_the_rates():
    fine, coarse = torch.zeros(100), torch.zeros(10)
    gradient = torch.Generator().manual_seed(0)
    Descent([fine, coarse], [0.03, 0.1]).step([torch.randn(100, generator=gradient) * 1e-6, torch.full((10,), 1e3)], 1.0)
    assert float(fine.abs().mean()) == pytest.approx(0.03, rel=0.2)
    torch.testing.assert_close(coarse, torch.full((10,), -0.1), rtol=0.05, atol=0)


def test_no_step_is_longer_than_some():
    x = torch.zeros(4)
    descent = Descent([x], [0.01])
    descent.step([torch.ones(4)], 1.0)
    before = x.clone()
    descent.step([torch.full((4,), 0.999)], 0.9)  # next to no curvature: the minimum seems a thousand steps away
    torch.testing.assert_close(before - x, torch.full((4,), LONGEST * 0.01))


def test_a_hilltop_is_not_taken_for_a_valley():
    x = torch.full((4,), 0.1)
    descent = Descent([x], [0.01])
    for _ in range(20):
        descent.step([-x.clone()], -float(x @ x) / 2)  # of -x²/2
    assert (x > 0.2).all()


def test_numbers_at_rest_stay_where_they_are():
    x = torch.ones(3)
    descent = Descent([x], [0.01])
    for _ in range(3):
        descent.step([torch.zeros(3)], 0.0)
    assert torch.equal(x, torch.ones(3))


def test_a_step_that_led_up_is_taken_back_and_the_next_is_shorter():
    x = torch.full((4,), 0.02)
    descent = Descent([x], [0.1])
    slope = torch.full((4,), 1.0)
    descent.step([slope], 0.04)  # to -0.08, beyond the minimum at 0 of |x|
    assert float(x[0]) == pytest.approx(-0.08, abs=0.01)
    descent.step([-slope], 0.32)
    assert (x.abs() < 0.02).all()  # from 0.02, with the curvature of what was met


def test_uphill_all_around_it_goes_on():
    """Rounding, or taking back what is out of range, may leave nowhere to go down to: that is not to end in ever shorter steps."""
    x = torch.zeros(4)
    descent = Descent([x], [0.01])
    seen = []
    for loss in range(12):
        descent.step([torch.ones(4)], float(loss))
        seen.append(float(x[0]))
    assert seen[-1] < 2 * seen[3]
