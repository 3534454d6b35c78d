"""Example C, DISC's example, and that the subsets are disjoint, cover all, and purify disputed labels only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.functional.partition import Subset, by_agreement, by_disc, by_verdicts, most_likely_clean

R, H, P, REST = Subset.CLEAN, Subset.HARD, Subset.PURIFIED, Subset.UNUSED


def judged(strong, weak, labels, tau_strong, tau_weak):
    """What the subsets are made of, from both networks' probabilities [N, K]."""
    rows = np.arange(len(labels))
    mean = (strong + weak) / 2
    return {
        "strong": strong[rows, labels] > tau_strong,
        "weak": weak[rows, labels] > tau_weak,
        "disputed": mean.argmax(1) != labels,
        "confidence": mean.max(1),
        "threshold": np.broadcast_to((tau_strong + tau_weak) / 2, len(labels)),
    }


STRONG = np.array([[0.7, 0.2, 0.1], [0.45, 0.35, 0.2], [0.02, 0.97, 0.01], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]])
WEAK = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]])
EXAMPLE_C = judged(STRONG, WEAK, np.zeros(5, int), 0.5, 0.4)


def test_example_c():
    assert EXAMPLE_C["strong"].tolist() == [True, False, False, False, True]
    assert EXAMPLE_C["weak"].tolist() == [True, True, False, False, False]
    np.testing.assert_allclose(EXAMPLE_C["confidence"], [0.65, 0.475, 0.885, 0.45, 0.5])
    subsets = by_verdicts(**EXAMPLE_C)
    assert subsets.dtype == np.int8
    assert subsets.tolist() == [R, H, P, H, H]  # row 3: .45 is not > .45
    assert by_verdicts(**EXAMPLE_C, sigma=0.435).tolist() == [R, H, H, H, H]  # .885 is not > .45 + .435


def test_example_c_by_agreement():
    # argmax p^s = (0, 0, 1, 1, 0), argmax p^w = (0, 0, 1, 1, 1): row 1 agrees with its label but a fails
    agree = STRONG.argmax(1) == WEAK.argmax(1)
    assert agree.tolist() == [True, True, True, True, False]
    assert by_agreement(**EXAMPLE_C, agree=agree).tolist() == [R, H, P, H, H]


def test_readings_differ():
    # Both predict class 1 and are sure; the strong network still believes label 0 against its low threshold.
    case = judged(np.array([[0.3, 0.7]]), np.array([[0.1, 0.9]]), np.array([0]), 0.2, 0.6)
    assert by_verdicts(**case).tolist() == [H]
    assert by_agreement(**case, agree=np.array([True])).tolist() == [P]


def test_example_of_disc():
    weak = np.array([[0.7, 0.2, 0.1], [0.45, 0.35, 0.2], [0.02, 0.97, 0.01], [0.3, 0.4, 0.3]])
    strong = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.02, 0.96, 0.02], [0.2, 0.5, 0.3]])
    case = judged(strong, weak, np.zeros(4, int), 0.4, 0.5)
    assert by_disc(**case).tolist() == [R, H, P, REST]  # .965 > .45 + .5
    assert by_disc(**case, sigma=1.0).tolist() == [R, H, REST, REST]  # the cap: .965 < .99


def test_an_undisputed_label_is_not_purified_above_the_cap():
    # tau = .998 of two sure networks, both dip to .995 on the given label: above the cap, below their thresholds.
    p = np.array([[0.995, 0.005]])
    case = judged(p, p, np.array([0]), 0.998, 0.998)
    assert not case["strong"][0]
    assert case["confidence"][0] > 0.99
    assert by_verdicts(**case).tolist() == [H]
    assert by_disc(**case).tolist() == [REST]


def test_a_disputed_label_is_purified_above_the_cap_whatever_the_threshold():
    p = np.array([[0.995, 0.005]])  # .995 < .998, but > .99
    assert by_verdicts(**judged(p, p, np.array([1]), 0.998, 0.998)).tolist() == [P]


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, k = draw(st.integers(1, 60)), draw(st.integers(2, 6))
    peak = draw(st.sampled_from([0.02, 0.3, 2.0]))
    strong, weak = rng.dirichlet(np.full(k, peak), n), rng.dirichlet(np.full(k, peak), n)
    labels = rng.integers(0, k, n)
    return strong, weak, labels, rng.beta(2, 0.5, n), rng.beta(2, 0.5, n)


@settings(max_examples=300, deadline=None)
@given(case=cases(), sigma=st.sampled_from([0.0, 0.2, 0.5, 1.0, 2.0]))
def test_invariants(case, sigma):
    strong, weak, labels, tau_strong, tau_weak = case
    seen = judged(*case)
    mean = (strong + weak) / 2
    agree = strong.argmax(1) == weak.argmax(1)
    splits = [
        by_verdicts(**seen, sigma=sigma),
        by_agreement(**seen, sigma=sigma, agree=agree),
        by_disc(**seen, sigma=sigma),
    ]
    for subsets in splits[:2]:
        assert np.isin(subsets, [R, H, P]).all()  # disjoint as one column, and they cover all
    for subsets in splits:
        assert (mean.argmax(1) != labels)[subsets == P].all()
        assert (seen["strong"] & seen["weak"])[subsets == R].all()
        if sigma >= 1:
            assert (mean.max(1)[subsets == P] > 0.99).all()
    # DISC differs from the default reading only in leaving the doubly rejected, unsure ones out.
    verdicts, _, disc = splits
    unused = disc == REST
    assert (disc[~unused] == verdicts[~unused]).all()
    assert not (seen["strong"] | seen["weak"])[unused].any()
    # Below the cap "disputed" follows from the rest, so the invariant is no artefact of asking for it.
    bound = (tau_strong + tau_weak) / 2 + sigma
    implied = ~seen["strong"] & ~seen["weak"] & (mean.max(1) > bound) & (bound <= 0.99)
    assert seen["disputed"][implied].all()


def test_a_higher_sigma_purifies_less():
    rng = np.random.default_rng(0)
    case = judged(
        rng.dirichlet(np.ones(3), 500), rng.dirichlet(np.ones(3), 500), rng.integers(0, 3, 500), 0.4, 0.4
    )
    sizes = [(by_verdicts(**case, sigma=sigma) == P).sum() for sigma in (0.0, 0.1, 0.2, 0.3)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.01, 1), n=st.integers(1, 80))
def test_most_likely_clean_takes_a_share_of_every_class(seed, share, n):
    rng = np.random.default_rng(seed)
    labels, q = rng.integers(0, 4, n), rng.integers(0, 6, n) / 5
    chosen = most_likely_clean(labels, q, share)
    for k in np.unique(labels):
        own = labels == k
        assert chosen[own].sum() == max(1, int(np.ceil(share * own.sum() - 1e-9)))
        if not chosen[own].all():
            assert q[own & chosen].min() >= q[own & ~chosen].max()


def test_most_likely_clean_of_ten_percent():
    # class 0: 10 % of 10 = 1, class 1: 10 % of 11 = 1.1, rounded up
    labels = np.repeat([0, 1], [10, 11])
    chosen = most_likely_clean(labels, np.linspace(0, 1, 21))
    assert np.flatnonzero(chosen).tolist() == [9, 19, 20]
    assert most_likely_clean(np.array([], int), np.array([])).tolist() == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_empty_columns(dtype):
    none, empty = np.zeros(0, bool), np.zeros(0, dtype)
    assert by_verdicts(none, none, none, empty, empty).shape == (0,)
