import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, chisquare, kstest
from torch.autograd import gradcheck

from rayclean.functional import mixing
from rayclean.functional.losses import cross_entropy

IDS = np.random.default_rng(0).choice(2**40, 4000, replace=False).astype(np.int64)


def rows(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_golden_numbers():
    # (.36, .09, .01) / .46
    assert mixing.sharpen(rows([[0.6, 0.3, 0.1]]))[0].tolist() == pytest.approx(
        [0.782609, 0.195652, 0.021739], abs=1e-6
    )
    # .8 onehot(1) + .2 (.6, .3, .1) = (.12, .86, .02), squared / .7544
    refined = mixing.co_refined_target(torch.tensor([1]), rows([0.8]), rows([[0.6, 0.3, 0.1]]))
    assert refined[0].tolist() == pytest.approx([0.019088, 0.980382, 0.000530], abs=1e-6)
    unsharpened = mixing.co_refined_target(torch.tensor([1]), rows([0.8]), rows([[0.6, 0.3, 0.1]]), 1.0)
    assert unsharpened[0].tolist() == pytest.approx([0.12, 0.86, 0.02])
    # .7 (1, 0) + .3 (0, 2);  .7 (0, 1, 0) + .3 (.8, .1, .1)
    mixed = mixing.interpolate(rows([[1, 0]]), rows([[0, 2]]), rows([0.7]))
    assert mixed[0].tolist() == pytest.approx([0.7, 0.6])
    target = mixing.interpolate(rows([[0, 1, 0]]), rows([[0.8, 0.1, 0.1]]), rows([0.7]))
    assert target[0].tolist() == pytest.approx([0.24, 0.73, 0.03])
    assert float(cross_entropy(rows([[1, 2, 0]]), target)) == pytest.approx(0.707606, abs=1e-6)


def partners(ids, members, seed, epoch):
    return mixing.partners(ids, torch.from_numpy(members), seed, epoch).numpy()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.01, 3), classes=st.integers(2, 8))
def test_targets_are_distributions_with_the_same_winner(seed, temperature, classes):
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(rng.dirichlet(np.ones(classes), 5))
    sharp = mixing.sharpen(p, temperature)
    torch.testing.assert_close(sharp.sum(1), torch.ones(5, dtype=p.dtype))
    assert (sharp.argmax(1) == p.argmax(1)).all()
    if temperature < 1:
        assert (sharp.amax(1) >= p.amax(1) - 1e-12).all()
    torch.testing.assert_close(mixing.sharpen(p, 1.0), p)
    y, c = torch.from_numpy(rng.integers(0, classes, 5)), torch.from_numpy(rng.random(5))
    torch.testing.assert_close(mixing.co_refined_target(y, c, p).sum(1), torch.ones(5, dtype=p.dtype))
    one_hot = torch.nn.functional.one_hot(y, classes).double()
    torch.testing.assert_close(mixing.co_refined_target(y, torch.ones(5), p), one_hot)
    torch.testing.assert_close(mixing.co_refined_target(y, torch.zeros(5), p), mixing.sharpen(p))


def test_sharpen_of_a_small_temperature_is_one_hot_and_finite():
    sharp = mixing.sharpen(torch.tensor([[1e-30, 2e-30, 0.0]]), 1e-3)
    assert sharp.tolist() == [[0, 1, 0]]
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature must be positive"):
            mixing.sharpen(torch.ones(1, 2), temperature)


def test_targets_carry_no_gradient():
    p, c = rows([[0.6, 0.3, 0.1]]).requires_grad_(), rows([0.8]).requires_grad_()
    assert not mixing.co_refined_target(torch.tensor([1]), c, p).requires_grad


@pytest.mark.parametrize("alpha", [0.75, 4.0])
def test_weights_are_those_of_the_beta_distribution(alpha):
    weights = mixing.mix_weights(IDS, 0, 3, alpha)
    assert ((weights >= 0.5) & (weights <= 1)).all()
    # lambda' = max(lambda, 1 - lambda): P(lambda' <= x) = F(x) - F(1 - x)
    drawn = beta(alpha, alpha)
    assert kstest(weights, lambda x: drawn.cdf(x) - drawn.cdf(1 - x)).pvalue > 1e-3


def test_weights_depend_on_seed_and_epoch():
    weights = mixing.mix_weights(IDS, seed=0, epoch=3)
    assert (mixing.mix_weights(IDS, 0, 3, mixing.ALPHA) == weights).all()
    assert (mixing.mix_weights(IDS, 0, 4) != weights).mean() > 0.99
    assert (mixing.mix_weights(IDS, 1, 3) != weights).mean() > 0.99
    with pytest.raises(ValueError, match="alpha must be positive"):
        mixing.mix_weights(IDS, 0, 3, alpha=0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), workers=st.integers(1, 4))
def test_neither_workers_nor_order_change_weight_or_partner(seed, workers):
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**40, 24, replace=False).astype(np.int64)
    members = rng.random(24) < 0.5
    weights, partner = mixing.mix_weights(ids, 5, 1), partners(ids, members, 5, 1)
    for rank in range(workers):
        assert (mixing.mix_weights(ids[rank::workers], 5, 1) == weights[rank::workers]).all()
    # Gathered in another order, with padding between, and other rows that are no members.
    order = rng.permutation(24)
    padded = np.append(ids[order], [-1, -1])
    other = partners(padded, np.append(members[order], [False, False]), 5, 1)
    assert (padded[other][:24] == ids[partner][order]).all()
    few = np.flatnonzero(members)
    alone = partners(ids[few], np.ones(len(few), bool), 5, 1)
    assert (ids[few][alone] == ids[partner][few]).all()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 30))
def test_partners_permute_the_members_only(seed, size):
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**40, size, replace=False).astype(np.int64)
    members = rng.random(size) < 0.6
    partner = partners(ids, members, seed, 2)
    assert sorted(partner) == list(range(size))
    assert (partner[~members] == np.flatnonzero(~members)).all()
    if members.sum() == 1:
        assert (partner == np.arange(size)).all()  # one row mixes with itself


def test_partners_are_uniform_over_permutations():
    ids = IDS[:3]
    codes = [tuple(partners(ids, np.ones(3, bool), seed, 1)) for seed in range(3000)]
    _, counts = np.unique(np.array(codes), axis=0, return_counts=True)
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 1e-3
    assert len({tuple(partners(IDS[:9], np.ones(9, bool), 0, epoch)) for epoch in range(20)}) > 15


def test_mixing_with_itself_changes_nothing():
    h = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixing.interpolate(h, h, torch.rand(4)), h)
    other = h.flip(0)
    torch.testing.assert_close(mixing.interpolate(h, other, torch.ones(4)), h)


def test_gradient_of_embmix():
    """L_H through a linear classifier: with respect to features and weights, own rows and partners alike."""
    rng = np.random.default_rng(0)
    partner = torch.from_numpy(partners(IDS[:5], np.ones(5, bool), 0, 1))
    share = torch.from_numpy(mixing.mix_weights(IDS[:5], 0, 1))
    goal = torch.from_numpy(rng.dirichlet(np.ones(3), 5))
    target = mixing.interpolate(goal, goal[partner], share)

    def loss(h, weight):
        return cross_entropy(mixing.interpolate(h, h[partner], share) @ weight, target)

    h, weight = torch.from_numpy(rng.standard_normal((5, 4))), torch.from_numpy(rng.standard_normal((4, 3)))
    assert gradcheck(loss, (h.requires_grad_(), weight.requires_grad_()))


def test_interpolation_takes_any_trailing_shape_and_keeps_the_dtype():
    mixed = mixing.interpolate(
        torch.ones(2, 3, 4), torch.zeros(2, 3, 4), torch.tensor([0.5, 0.75], dtype=torch.float64)
    )
    assert mixed.dtype == torch.float32
    assert mixed[:, 0, 0].tolist() == [0.5, 0.75]
    assert mixing.interpolate(torch.ones(2), torch.zeros(2), torch.tensor([0.5, 0.75])).tolist() == [
        0.5,
        0.75,
    ]


def test_copies_of_an_example_are_mixed_as_rows_of_their_own():
    ids = IDS[:50]
    keys = mixing.copy_keys(ids, 3)
    assert len(set(keys)) == 150
    assert (mixing.copy_keys(ids, 1) == ids).all()
    order = np.random.default_rng(0).permutation(50)
    assert (mixing.copy_keys(ids[order], 3).reshape(3, 50) == keys.reshape(3, 50)[:, order]).all()
    partner = partners(keys, np.ones(150, bool), 0, 1)
    assert sorted(partner) == list(range(150))
    assert (partner[:50] % 50 != partner[50:100] % 50).mean() > 0.8  # the views of an example: other partners
    assert (mixing.mix_weights(keys, 0, 1)[:50] != mixing.mix_weights(keys, 0, 1)[50:100]).all()


def test_a_ramp():
    assert [mixing.ramp_up(at, 2, 2) for at in (0, 2, 2.5, 3, 4, 9)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [mixing.ramp_up(at, 2, 0) for at in (1.9, 2)] == [0, 1]
