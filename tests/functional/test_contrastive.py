"""Example B of the specification, the bounds, and that gathered columns are exact."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from rayclean.functional import contrastive

ANGLES = torch.tensor([0.0, 30, 90, 120], dtype=torch.float64).deg2rad()
H = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
Y = torch.tensor([0, 0, 1, 1])
W = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.5, 0.5]], dtype=torch.float64)


def scl(pairs: contrastive.Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    """The supervised contrastive loss: LCL with equal weights."""
    classes = int(pairs.column_labels.max()) + 1
    return contrastive.lcl(pairs, pairs.similarity.new_full((len(pairs.labels), classes), 1 / classes))


LOSSES = {
    "scl": lambda pairs, w: scl(pairs),
    "lcl": contrastive.lcl,
    "lcl_code": lambda pairs, w: contrastive.lcl(pairs, w, "code"),
    "lscl": contrastive.lscl,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def case(seed: int, rows: int = 7, classes: int = 3, dim: int = 4):
    rng = np.random.default_rng(seed)
    h = torch.from_numpy(rng.standard_normal((rows, dim)))
    y = torch.from_numpy(rng.integers(0, classes, rows))
    return h, y, torch.from_numpy(rng.dirichlet(np.ones(classes), rows))


@pytest.mark.parametrize(
    ("loss", "tau", "rows"),
    [
        ("lscl", 1.0, [-0.797414, -0.739246, -1.278243, -0.391948]),
        ("lscl", 0.3, [-3.119208, -1.894375, -2.433371, -2.713743]),
        # row 0: s = cos 30, 90, 120 = .866025, 0, -.5: log(e^.866025 + 1 + e^-.5) - .866025
        ("scl", 1.0, [0.516254, 0.748632, 0.748632, 0.516254]),
        ("lcl", 1.0, [0.371903, 0.390334, 0.245708, 0.516254]),
    ],
)
def test_example_b_rows(loss, tau, rows):
    values, counted = LOSSES[loss](contrastive.pair(H, Y, tau=tau), W)
    assert values.tolist() == pytest.approx(rows, abs=1e-6)
    assert counted.all()


@pytest.mark.parametrize(
    ("loss", "tau", "mean"),
    [
        ("lscl", 1.0, -0.801713),
        ("lscl", 0.3, -2.540174),
        ("scl", 1.0, 0.632443),
        ("scl", 0.3, 0.182500),
        ("lcl", 1.0, 0.381050),
        ("lcl", 0.3, 0.082913),
        ("lcl_code", 1.0, -0.032547),
        ("lcl_code", 0.3, -0.214463),
    ],
)
def test_example_b_means(loss, tau, mean):
    values, _ = LOSSES[loss](contrastive.pair(H, Y, tau=tau), W)
    assert float(values.mean()) == pytest.approx(mean, abs=1e-6)


@every_loss
def test_gradients_of_features_and_weights(loss):
    h, y, w = case(0)
    # free logits instead of w itself, so that rows stay distributions; no clamp is active at w > .05
    free = (0.3 * w.log()).requires_grad_()
    assert float(free.detach().softmax(1).min()) > 0.05

    def values(features, logits):
        return loss(contrastive.pair(features, y), logits.softmax(1))[0]

    assert gradcheck(values, (h.requires_grad_(), free))


@pytest.mark.parametrize("name", ["lcl", "lcl_code", "lscl"])
def test_the_gradient_goes_into_the_auxiliary_network_unless_detached(name):
    h, y, w = case(1)
    h.requires_grad_()
    w = w.clamp(min=0.1).requires_grad_()
    LOSSES[name](contrastive.pair(h, y), w)[0].sum().backward()
    assert float(w.grad.abs().sum()) > 0
    h.grad = w.grad = None
    LOSSES[name](contrastive.pair(h, y), w.detach())[0].sum().backward()
    assert w.grad is None
    assert float(h.grad.abs().sum()) > 0


@every_loss
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_order_nor_rotation_changes_a_row(loss, seed):
    h, y, w = case(seed)
    values, counted = loss(contrastive.pair(h, y), w)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(7))
    permuted, also = loss(contrastive.pair(h[order], y[order]), w[order])
    torch.testing.assert_close(permuted, values[order])
    assert (also == counted[order]).all()
    rotation = torch.linalg.qr(torch.from_numpy(np.random.default_rng(seed + 1).standard_normal((4, 4))))[0]
    torch.testing.assert_close(loss(contrastive.pair(h @ rotation, y), w)[0], values)
    torch.testing.assert_close(loss(contrastive.pair(5 * h, y), w)[0], values)  # unit features


@every_loss
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_gathered_columns_give_the_rows_and_gradients_of_one_worker(loss, workers):
    h, y, w = case(2)
    alone = h.clone().requires_grad_()
    expected, counted = loss(contrastive.pair(alone, y), w)
    (expected * torch.arange(7)).sum().backward()

    # As the loop cuts a global batch: rank r has rows r, r + W, ..., padded to one size; columns hold the padding too.
    size = -(-7 // workers)
    position = torch.arange(size * workers).reshape(workers, size)
    rows = [torch.arange(rank, 7, workers) for rank in range(workers)]
    columns, labels = (
        torch.full((size * workers, 4), 9.0, dtype=h.dtype),
        torch.zeros(size * workers, dtype=torch.int64),
    )
    valid = torch.zeros(size * workers, dtype=torch.bool)
    for own, where in zip(rows, position, strict=True):
        columns[where[: len(own)]], labels[where[: len(own)]], valid[where[: len(own)]] = h[own], y[own], True
    columns.requires_grad_()
    total = torch.zeros((), dtype=h.dtype)
    for own, where in zip(rows, position, strict=True):
        mine = where[: len(own)]
        pairs = contrastive.pair(columns[mine], y[own], mine, columns, labels, valid)
        values, ours = loss(pairs, w[own])
        torch.testing.assert_close(values, expected[own])
        assert (ours == counted[own]).all()
        total = total + (values * own).sum()
    total.backward()
    for own, where in zip(rows, position, strict=True):
        torch.testing.assert_close(columns.grad[where[: len(own)]], alone.grad[own])
    assert (columns.grad[~valid] == 0).all()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([0.1, 0.3, 1.0]), sure=st.floats(1, 60))
def test_lscl_is_bounded(seed, tau, sure):
    h, y, w = case(seed, rows=12)
    w = (w.log() * sure).softmax(1)  # up to one-hot
    pairs = contrastive.pair(h, y, tau=tau)
    values, counted = contrastive.lscl(pairs, w)
    n = pairs.negative.sum(1)[counted].double()
    values = values[counted]
    assert (values >= torch.log(n * 0.05) - 2 / tau - 1e-9).all()
    assert (values <= torch.log(n) + 2 / tau - math.log(0.05) + 1e-9).all()


def test_without_the_clamp_a_sure_auxiliary_network_pushes_lscl_down():
    sure = torch.tensor([[1 - 1e-9, 1e-9]] * 2 + [[1e-9, 1 - 1e-9]] * 2, dtype=torch.float64)
    pairs = contrastive.pair(H, Y)
    assert float(contrastive.lscl(pairs, sure, w_min=1e-12)[0].max()) < -15
    assert float(contrastive.lscl(pairs, sure)[0].min()) > math.log(2 * 0.05) - 2 / 0.3


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_relations_between_the_losses(seed):
    h, y, w = case(seed)
    pairs = contrastive.pair(h, y)
    equal, counted = scl(pairs)
    lcl, _ = contrastive.lcl(pairs, w)
    lscl, _ = contrastive.lscl(pairs, w, w_min=1e-12)
    assert (equal >= 0).all()
    assert (lcl >= 0).all()
    assert (lscl <= lcl + 1e-12).all()  # its denominator lacks the positives
    one_class = y.eq(y[0]).all()
    assert (counted | (equal == 0)).all()
    assert not one_class or (lscl == 0).all()


def test_identical_features_give_the_logarithm_of_the_others():
    values, _ = scl(contrastive.pair(torch.ones(5, 3), torch.zeros(5, dtype=torch.int64)))
    assert values.tolist() == pytest.approx([math.log(4)] * 5)


@every_loss
def test_rows_without_partners_are_zero_without_gradient(loss):
    h = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    w = torch.full((3, 3), 1 / 3, requires_grad=True)
    values, counted = loss(contrastive.pair(h, torch.tensor([0, 1, 2])), w)  # no positives
    assert values.tolist() == [0, 0, 0]
    assert not counted.any()
    values.sum().backward()
    assert (h.grad == 0).all()
    h.grad = None
    single, counted = loss(contrastive.pair(h[:1], torch.tensor([0])), w[:1])  # nobody else
    single.sum().backward()
    assert (single.tolist(), counted.tolist()) == ([0], [False])
    assert (h.grad == 0).all()
    assert w.grad is None or (w.grad == 0).all()


def test_lscl_of_a_batch_of_one_class_is_zero():
    h = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values, counted = contrastive.lscl(
        contrastive.pair(h, torch.zeros(3, dtype=torch.int64)), torch.ones(3, 2) / 2
    )
    values.sum().backward()
    assert values.tolist() == [0, 0, 0]
    assert not counted.any()
    assert (h.grad == 0).all()


@every_loss
def test_w_of_zero_and_features_of_zero_or_half_precision_stay_finite(loss):
    h = torch.zeros(4, 2, requires_grad=True)
    w = torch.tensor([[1.0, 0.0]] * 4, requires_grad=True)
    values, _ = loss(contrastive.pair(h, Y), w)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(h.grad).all()
    half, _ = loss(contrastive.pair(H.bfloat16(), Y, tau=0.01), W.float())
    assert half.dtype == torch.float32
    assert torch.isfinite(half).all()


def test_without_normalisation_lengths_matter():
    values, _ = scl(contrastive.pair(H, Y, tau=1.0, normalize=False))
    longer, _ = scl(contrastive.pair(2 * H, Y, tau=4.0, normalize=False))  # (2 h)(2 h) / 4
    torch.testing.assert_close(values, longer)


def test_bad_arguments():
    with pytest.raises(ValueError, match="tau must be positive"):
        contrastive.pair(H, Y, tau=0)
    with pytest.raises(ValueError, match="go together"):
        contrastive.pair(H, Y, columns=H)
