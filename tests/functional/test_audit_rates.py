"""Golden numbers, limits and coverage of an audit's rates."""

from collections.abc import Callable
from math import comb, isnan

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from rayclean.functional.audit_rates import (
    AuditRates,
    annotator_rates,
    audit_rates,
    error_bound,
    is_random_like,
    stratified_draw,
    unexpected_noise,
)
from rayclean.functional.proportions import AuditedPart, Rate, found_share, noise_rate, proportion_limits

# Limits of one share.


@pytest.mark.parametrize(
    ("wrong", "drawn", "low", "high"),
    [(5, 100, 0.0164, 0.1128), (10, 100, 0.0490, 0.1762), (20, 100, 0.1267, 0.2918), (0, 100, 0.0, 0.0362)],
)
def test_clopper_pearson_of_a_large_set(wrong: int, drawn: int, low: float, high: float) -> None:
    assert proportion_limits(wrong, drawn, None, 0.025) == pytest.approx((low, high), abs=5e-5)
    assert proportion_limits(wrong, drawn, 1_000_000, 0.025) == pytest.approx((low, high), abs=2e-4)


def test_limits_of_a_finite_set_by_hand() -> None:
    # 3 of 6 drawn, 1 wrong. K = 1 ... 4 are possible. P(X >= 1 | K) = 1/2, 4/5, 19/20, 1;
    # P(X <= 1 | K) = 1, 4/5, 1/2, 1/5.
    assert proportion_limits(1, 3, 6, 0.1) == (1 / 6, 4 / 6)
    assert proportion_limits(1, 3, 6, 0.25) == (1 / 6, 3 / 6)
    assert proportion_limits(1, 3, 6, 0.55) == (2 / 6, 2 / 6)


def test_limits_without_chance() -> None:
    assert proportion_limits(7, 20, 20, 0.025) == (0.35, 0.35)
    assert proportion_limits(0, 0, 20, 0.025) == proportion_limits(0, 0, None, 0.025) == (0.0, 1.0)
    assert proportion_limits(0, 5, 10, 0.025)[0] == 0.0
    assert proportion_limits(5, 5, 10, 0.025)[1] == 1.0
    with pytest.raises(ValueError, match="tail"):
        proportion_limits(1, 3, 6, 0.0)
    with pytest.raises(ValueError, match="wrong <= drawn <= size"):
        AuditedPart(10, 3, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.floats(0.005, 0.4))
@example(48, 1, 0.0, 0.25)  # 12 of 48 is the tail itself
def test_limits_hold_all_sizes_that_the_sample_does_not_contradict(
    size: int, drawn: int, share: float, tail: float
) -> None:
    drawn = min(drawn, size)
    wrong = round(share * drawn)
    possible = [
        k
        for k in range(wrong, size - drawn + wrong + 1)
        if exactly(range(wrong, drawn + 1), k, drawn, size) > tail + 1e-12
        and exactly(range(wrong + 1), k, drawn, size) > tail + 1e-12
    ]
    low, high = proportion_limits(wrong, drawn, size, tail)
    if possible:
        assert (low, high) == (min(possible) / size, max(possible) / size)


def exactly(seen: range, bad: int, drawn: int, size: int) -> float:
    ways = sum(
        comb(bad, x) * comb(size - bad, drawn - x) for x in seen if x <= bad and drawn - x <= size - bad
    )
    return ways / comb(size, drawn)


def test_error_bound_of_a_clean_sample() -> None:
    # (1 - b)^n = .05 in a large set.
    assert error_bound(AuditedPart(1_000_000, 50, 0)) == pytest.approx(1 - 0.05 ** (1 / 50), abs=1e-4)
    assert error_bound(AuditedPart(100, 100, 4), delta=0.01) == 0.04
    assert error_bound(AuditedPart(100, 0, 0)) == 1.0


# Both parts.


def test_the_sum_of_two_parts_by_hand() -> None:
    suspects, rest = AuditedPart(100, 50, 35), AuditedPart(900, 50, 5)
    (a, b), (c, d) = proportion_limits(35, 50, 100, 0.025), proportion_limits(5, 50, 900, 0.025)
    noise = noise_rate([suspects, rest])
    assert noise.value == pytest.approx(0.1 * 0.7 + 0.9 * 0.1)
    assert noise.low == pytest.approx(0.16 - np.sqrt((0.1 * (0.7 - a)) ** 2 + (0.9 * (0.1 - c)) ** 2))
    assert noise.high == pytest.approx(0.16 + np.sqrt((0.1 * (b - 0.7)) ** 2 + (0.9 * (d - 0.1)) ** 2))
    share = found_share(suspects, rest)
    assert share.value == pytest.approx(0.07 / 0.16)
    for s, p, q, sign in ((share.low, a, d, 1), (share.high, b, c, -1)):
        contrast = (1 - s) * 0.07 - s * 0.09
        half = np.hypot((1 - s) * 0.1 * (p - 0.7), s * 0.9 * (q - 0.1))
        assert contrast == pytest.approx(sign * half)


def test_one_part_is_its_clopper_pearson_interval() -> None:
    low, high = proportion_limits(5, 50, 900, 0.025)
    rate = noise_rate([AuditedPart(900, 50, 5), AuditedPart(0, 0, 0)])
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.1, low, high))


def test_limits_of_the_share_found() -> None:
    everything = found_share(AuditedPart(100, 100, 30), AuditedPart(300, 300, 10))
    assert (everything.value, everything.low, everything.high) == pytest.approx((0.75, 0.75, 0.75))
    none_outside = found_share(AuditedPart(100, 50, 30), AuditedPart(900, 50, 0))
    assert (none_outside.value, none_outside.high) == (1.0, 1.0)
    assert 0.3 < none_outside.low < 0.6
    all_outside = found_share(AuditedPart(100, 50, 0), AuditedPart(900, 50, 20))
    assert (all_outside.value, all_outside.low) == (0.0, 0.0)
    nothing = found_share(AuditedPart(100, 50, 0), AuditedPart(900, 50, 0))
    assert isnan(nothing.value)
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    only_suspects = found_share(AuditedPart(100, 50, 10), AuditedPart(0, 0, 0))
    assert (only_suspects.value, only_suspects.low, only_suspects.high) == (1.0, 1.0, 1.0)


def test_nothing_audited() -> None:
    found = audit_rates(np.zeros(0), np.zeros(0), suspects=100, examples=1000, expected_rest=0.1)
    for rate in (found.noise, found.among_suspects, found.among_rest, found.found):
        assert isnan(rate.value)
        assert (rate.low, rate.high) == (0.0, 1.0)
    assert (found.unexpected, found.systematic) == (1.0, False)


counts = st.integers(1, 50)


@settings(max_examples=60, deadline=None)
@given(counts, counts, st.floats(0, 1), st.floats(0, 1), st.integers(50, 500), st.integers(50, 5000))
def test_one_more_wrong_label_raises_what_it_should(
    n: int, m: int, p: float, q: float, inside: int, outside: int
) -> None:
    x, y = round(p * (n - 1)), round(q * (m - 1))
    suspects, rest = AuditedPart(inside, n, x), AuditedPart(outside, m, y)
    more_inside, more_outside = AuditedPart(inside, n, x + 1), AuditedPart(outside, m, y + 1)
    noise, share = noise_rate([suspects, rest]), found_share(suspects, rest)
    assert 0 <= noise.low <= noise.value <= noise.high <= 1
    assert noise_rate([more_inside, rest]).value > noise.value
    assert noise_rate([suspects, more_outside]).value > noise.value
    if x + y:
        assert 0 <= share.low <= share.value + 1e-9
        assert share.value <= share.high + 1e-9 <= 1 + 1e-9
        assert found_share(more_inside, rest).value >= share.value
        assert found_share(suspects, more_outside).value <= share.value
    wider = noise_rate([suspects, rest], level=0.99)
    assert wider.low <= noise.low + 1e-12
    assert wider.high >= noise.high - 1e-12


@pytest.mark.parametrize("rates", [(0.7, 0.08), (0.75, 0.43), (0.9, 0.02), (0.3, 0.0), (1.0, 0.2)])
@pytest.mark.parametrize("measure", [noise_rate, found_share])
def test_intervals_cover(rates: tuple[float, float], measure: Callable[..., Rate]) -> None:
    """The exact coverage, summed over all that a draw of 50 suspects of 100 and 50 of 900 others may hold."""
    bad = [round(100 * rates[0]), round(900 * rates[1])]
    true = sum(bad) / 1000 if measure is noise_rate else bad[0] / sum(bad)
    chances = [hypergeom.pmf(np.arange(51), size, k, 50) for size, k in zip((100, 900), bad, strict=True)]
    covered = total = 0.0
    for x, y in np.argwhere(np.outer(*chances) > 1e-6):
        suspects, rest = AuditedPart(100, 50, int(x)), AuditedPart(900, 50, int(y))
        found = noise_rate([suspects, rest]) if measure is noise_rate else found_share(suspects, rest)
        chance = chances[0][x] * chances[1][y]
        total += chance
        covered += chance * (found.low <= true + 1e-9 and true <= found.high + 1e-9)
    assert covered / total >= 0.95


# The verdict.


def test_unexpected_noise_by_hand() -> None:
    # 10 others, 4 audited, 2 wrong; .27 + .03 of 10 are 3: P(X >= 2) = (3 * 21 + 7) / 210 = 1/3.
    assert unexpected_noise(AuditedPart(10, 4, 2), 0.27) == pytest.approx(1 / 3)
    assert unexpected_noise(AuditedPart(10, 4, 0), 0.27) == 1.0
    assert unexpected_noise(AuditedPart(10, 4, 4), 0.99) == 1.0
    with pytest.raises(ValueError, match="expected rate"):
        unexpected_noise(AuditedPart(10, 4, 0), 1.1)


def audit(seed: int, wrong: np.ndarray, suspects: int, expected_rest: float) -> AuditRates:
    """50 suspects (the first rows) and 50 of all examples, as an audit draws them."""
    ids = np.arange(len(wrong))
    quality = ids / len(ids)
    drawn = np.union1d(
        stratified_draw(ids[:suspects], quality[:suspects], 50, seed, "suspects"),
        stratified_draw(ids, quality, 50, seed, "random"),
    )
    return audit_rates(wrong[drawn], drawn < suspects, suspects, len(wrong), expected_rest)


def test_noise_that_detection_does_not_see_is_called_systematic() -> None:
    """Noise .46, 10 % suspects of whom three in four are wrong; detection expects .133 wrong labels in all."""
    for seed in range(10):
        wrong = np.random.default_rng(seed).random(1000) < np.where(np.arange(1000) < 100, 0.75, 0.43)
        found = audit(seed, wrong, suspects=100, expected_rest=0.065)
        assert found.systematic
        assert found.unexpected < 1e-4
        assert found.found.high < 0.5


@pytest.mark.parametrize("expected_rest", [0.0, 0.025])
def test_random_noise_that_detection_sees_is_not(expected_rest: float) -> None:
    """Noise .2, 200 suspects that hold 90 % of the wrong labels; also where detection thinks it has found all."""
    said = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        wrong = np.zeros(1000, dtype=np.bool_)
        wrong[rng.choice(200, 180, replace=False)] = wrong[200 + rng.choice(800, 20, replace=False)] = True
        said += audit(seed, wrong, suspects=200, expected_rest=expected_rest).systematic
    assert said <= 1


@pytest.mark.parametrize(
    ("suspects", "random", "least", "most"), [(50, 50, 0.9, 1.0), (50, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)]
)
def test_only_enough_answers_say_random_like(suspects: int, random: int, least: float, most: float) -> None:
    """Rates as on `youtube_weak`: a tenth of the labels is doubted, .7 of them are wrong, and .076 of the others."""
    said = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        wrong = rng.random(1400) < np.where(np.arange(1400) < 140, 0.7, 0.076)
        drawn = np.union1d(rng.choice(140, suspects, replace=False), rng.choice(1400, random, replace=False))
        drawn = drawn.astype(np.int64)
        found = audit_rates(wrong[drawn], drawn < 140, suspects=140, examples=1400, expected_rest=0.024)
        said.append(is_random_like(found.found.low, found.among_rest.high, 0.024))
    assert least <= np.mean(said) <= most


def test_much_noise_beyond_a_small_budget_is_not_systematic_where_it_is_expected() -> None:
    said = 0
    for seed in range(10):
        wrong = np.random.default_rng(seed).random(1000) < np.where(np.arange(1000) < 100, 0.9, 0.4)
        said += audit(seed, wrong, suspects=100, expected_rest=0.4).systematic
    assert said <= 1


# The annotator.


def test_annotator_rates_by_hand() -> None:
    right = np.array([True, True, False, False, True, True, True, True])
    before = np.array([True, True, True, False, False, False, False, False])
    after = np.array([False, False, True, True, False, False, False, False])
    rates = annotator_rates(right, before, after)
    assert (rates.accuracy.value, rates.repaired.value, rates.harmed.value) == (6 / 8, 2 / 3, 1 / 5)
    assert (rates.harmed.low, rates.harmed.high) == pytest.approx(proportion_limits(1, 5, None, 0.025))
    unharmed = annotator_rates(right[:3], before[:3], after[:3]).harmed
    assert isnan(unharmed.value)  # no label was right before
    assert (unharmed.low, unharmed.high) == (0.0, 1.0)


# The draw.


def test_a_draw_is_even_and_fair_and_belongs_to_ids() -> None:
    ids = np.random.default_rng(0).permutation(1000) + 5
    quality = (ids % 97) / 97
    rows = stratified_draw(ids, quality, 50, 0, "random")
    assert len(set(rows.tolist())) == 50
    ranks = np.argsort(np.argsort(quality, kind="stable"), kind="stable")
    assert set(np.bincount(ranks[rows] // 100, minlength=10).tolist()) <= {4, 5, 6}
    shuffled = np.random.default_rng(1).permutation(1000)
    again = stratified_draw(ids[shuffled], quality[shuffled], 50, 0, "random")
    assert ids[shuffled][again].tolist() == ids[rows].tolist()
    assert set(ids[stratified_draw(ids, quality, 50, 1, "random")]) != set(ids[rows])
    assert sorted(stratified_draw(ids[:7], quality[:7], 50, 0, "random")) == list(range(7))
    assert len(stratified_draw(ids[:0], quality[:0], 50, 0, "random")) == 0


def test_every_example_is_drawn_equally_often() -> None:
    ids, quality = np.arange(60), np.linspace(0, 1, 60)
    drawn = np.zeros(60)
    for seed in range(400):
        drawn[stratified_draw(ids, quality, 25, seed, "random")] += 1
    share = drawn / 400
    assert share.mean() == pytest.approx(25 / 60)
    assert np.abs(share - 25 / 60).max() < 4 * np.sqrt(25 / 60 * 35 / 60 / 400)
