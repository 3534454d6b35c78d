import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from rayclean.functional import losses

Z = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64)  # p = (.244728, .665241, .090031)


def logits(seed: int, rows: int = 4, classes: int = 5, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, classes)))


def of_every_label(loss, z: torch.Tensor) -> torch.Tensor:
    """[B, K]: the loss of each row under each label."""
    return torch.stack([loss(z, torch.full((len(z),), k)) for k in range(z.shape[1])], 1)


def test_golden_numbers_of_rce():
    # -A (1 - p_y), A = log 1e-4 = -9.210340: 9.210340 x (.755272, .334759, .909969)
    values = of_every_label(losses.reverse_cross_entropy, Z)[0]
    assert values.tolist() == pytest.approx([6.956308, 3.083245, 8.381128], abs=1e-5)
    assert float(values.sum()) == pytest.approx(18.420681, abs=1e-5)


@pytest.mark.parametrize(("p", "expected"), [(0.5, 0.549183), (0.9, 0.101569)])
def test_golden_numbers_of_gce(p, expected):
    z = torch.tensor([[math.log(p), math.log(1 - p)]], dtype=torch.float64)
    # (1 - .5^.7) / .7 = (1 - .615572) / .7
    assert float(losses.generalized_cross_entropy(z, torch.tensor([0]))) == pytest.approx(expected, abs=1e-6)


def test_golden_numbers_of_ce_sce_and_kl():
    y = torch.tensor([1])
    assert float(losses.cross_entropy(Z, y)) == pytest.approx(0.407606, abs=1e-6)  # -log .665241
    # .1 x .407606 + 1 x 3.083245
    assert float(losses.symmetric_cross_entropy(Z, y)) == pytest.approx(3.124006, abs=1e-5)
    # target (.24, .73, .03): .24 x 1.407606 + .73 x .407606 + .03 x 2.407606
    soft = torch.tensor([[0.24, 0.73, 0.03]], dtype=torch.float64)
    assert float(losses.cross_entropy(Z, soft)) == pytest.approx(0.707606, abs=1e-6)
    # p = (.75, .25), q = (.25, .75): 1/2 (.5 log 3 + .5 log 3) = .549306
    p = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    assert float(losses.symmetric_kl(p, p.flip(1))) == pytest.approx(0.5 * math.log(3), abs=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        losses.cross_entropy,
        losses.reverse_cross_entropy,
        losses.symmetric_cross_entropy,
        losses.generalized_cross_entropy,
    ],
)
def test_gradients(loss):
    y = torch.tensor([0, 4, 2, 2])
    assert gradcheck(lambda z: loss(z, y), logits(0).requires_grad_())


def test_gradients_of_soft_targets_and_kl():
    target = logits(1).softmax(1)
    assert gradcheck(lambda z: losses.cross_entropy(z, target), logits(0).requires_grad_())
    both = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert gradcheck(losses.symmetric_kl, both)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 8), eta=st.floats(0, 1))
def test_rce_is_symmetric(seed, classes, eta):
    z = logits(seed, 3, classes)
    values = of_every_label(losses.reverse_cross_entropy, z)
    total = -losses.LOG_ZERO * (classes - 1)
    torch.testing.assert_close(values.sum(1), torch.full((3,), total, dtype=z.dtype))
    torch.testing.assert_close(values, -losses.LOG_ZERO * (1 - z.softmax(1)))
    # Uniform noise: E_noisy = (1 - eta K / (K - 1)) E_clean + eta / (K - 1) x (sum over all labels), exactly.
    clean = values[:, 0]
    noisy = (1 - eta) * clean + eta / (classes - 1) * values[:, 1:].sum(1)
    torch.testing.assert_close(
        noisy, (1 - eta * classes / (classes - 1)) * clean + eta / (classes - 1) * total
    )


def test_ce_is_not_symmetric():
    sums = of_every_label(losses.cross_entropy, logits(0)).sum(1)
    assert float(sums.max() - sums.min()) > 1


def test_limits_of_gce():
    z, y = logits(2), torch.tensor([0, 1, 2, 3])
    ce, half_mae = losses.cross_entropy(z, y), 1 - z.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(losses.generalized_cross_entropy(z, y, q=1.0), half_mae)
    torch.testing.assert_close(losses.generalized_cross_entropy(z, y, q=1e-7), ce, rtol=1e-5, atol=0)
    for q in (0.0, 1.5):
        with pytest.raises(ValueError, match="q must be in"):
            losses.generalized_cross_entropy(z, y, q=q)


def test_hard_labels_are_one_hot_soft_ones():
    z, y = logits(3), torch.tensor([4, 0, 1, 1])
    soft = torch.nn.functional.one_hot(y, 5).double()
    torch.testing.assert_close(losses.cross_entropy(z, soft), losses.cross_entropy(z, y))


def test_kl_is_symmetric_and_zero_for_the_same_distribution():
    p, q = logits(4), logits(5)
    torch.testing.assert_close(losses.symmetric_kl(p, q), losses.symmetric_kl(q, p))
    torch.testing.assert_close(losses.symmetric_kl(p, p + 7), torch.zeros(4, dtype=p.dtype))
    assert (losses.symmetric_kl(p, q) > 0).all()


@pytest.mark.parametrize(
    "loss", [losses.reverse_cross_entropy, losses.generalized_cross_entropy, losses.symmetric_cross_entropy]
)
def test_extreme_logits_stay_finite(loss):
    z = torch.tensor([[1e4, 0.0], [1e4, 0.0]], requires_grad=True)  # float32
    values = loss(z, torch.tensor([0, 1]))
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(z.grad).all()
    assert float(values[0].detach()) == 0


def test_rce_cannot_mend_a_confident_mistake():
    # d loss / d z_y = A p_y (1 - p_y): .25 A at p_y = .5, about 4.5e-5 A at z = (10, 0) with label 1
    z = torch.tensor([[0.0, 0.0], [10.0, 0.0]], dtype=torch.float64, requires_grad=True)
    losses.reverse_cross_entropy(z, torch.tensor([1, 1])).sum().backward()
    assert float(z.grad[0, 1]) == pytest.approx(0.25 * losses.LOG_ZERO)
    assert abs(float(z.grad[1, 1])) < 1e-3


def test_golden_numbers_of_dividemix():
    """METHODS 10: logits (1, 2, 0) and the mixed target (.24, .73, .03)."""
    target = torch.tensor([[0.24, 0.73, 0.03]], dtype=torch.float64)
    # ((.244728 - .24)^2 + (.665241 - .73)^2 + (.090031 - .03)^2) / 3
    assert float(losses.squared_error(Z, target)) == pytest.approx(0.002607, abs=1e-6)
    assert float(losses.prior_divergence(Z.softmax(-1)[0])) == pytest.approx(0.308994, abs=1e-6)
    assert float(losses.negative_entropy(Z)) == pytest.approx(-0.832396, abs=1e-6)


def test_limits_of_the_terms_of_dividemix():
    uniform = torch.full((5,), 0.2, dtype=torch.float64)
    assert float(losses.prior_divergence(uniform)) == pytest.approx(0, abs=1e-12)
    z = logits(0).requires_grad_()
    assert (losses.prior_divergence(z.softmax(-1)) > 0).all()
    assert float(losses.negative_entropy(torch.zeros(1, 5))) == pytest.approx(-math.log(5), abs=1e-6)
    right = torch.eye(5, dtype=torch.float64)[:1]
    assert float(losses.squared_error(right * 1000, right)) == 0
    assert float(losses.squared_error(right * 1000, right.roll(1))) == pytest.approx(2 / 5)
    empty = torch.tensor([1.0, 0.0], requires_grad=True)
    losses.prior_divergence(empty).backward()  # a class of no probability
    assert torch.isfinite(empty.grad).all()
    assert gradcheck(losses.negative_entropy, (z,))
    target = logits(1).softmax(-1)
    assert gradcheck(lambda z: losses.squared_error(z, target), (z,))
    assert gradcheck(lambda z: losses.prior_divergence(z.softmax(-1).mean(0)), (z,))
