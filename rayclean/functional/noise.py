"""Label noise for experiments: eight ways to make labels wrong, each with a known rate.

Every draw is a hash of (`example_id`, seed, purpose), and whatever is chosen globally ("exactly so many ids",
a permutation) goes by the order of such hashes, so that the result depends neither on the order of the
examples nor on how they are cut into shards. N examples, K classes, eta the requested rate:

| kind | a label y becomes | share of wrong labels |
|---|---|---|
| `sym` | another class, uniformly, with probability eta | eta |
| `sym_incl` | one of all K classes (y among them), for exactly floor(eta N) ids | eta (1 - 1/K) on average |
| `asym` | (y + 1) mod K with probability eta | eta |
| `asym_map` | mapping[y] with probability eta, where mapped | eta x mapped share |
| `idn_softmax` | the class a model confuses it with, for floor(eta N) ids | exactly floor(eta N) / N |
| `idn_xia` | a class drawn from a random feature-dependent softmax | about eta |
| `lane_shuffle` | permuted among round(eta N) chosen ids | eta (1 - sum of squared class shares) |
| `lane_flip` | another class, uniformly, for exactly round(eta N) ids | exactly round(eta N) / N |

`sym` and `asym` flip exactly round(eta N) ids with `exact=True`. rate = 0 changes nothing, whatever the kind.

Sources: `sym_incl`: Li et al., DivideMix, ICLR 2020 (code). `asym`: Qiao et al., SelfMix, COLING 2022 (code;
pair flip). `idn_softmax`: Algan & Ulusoy, "Label noise types and their effects on deep learning", 2020
(code). `idn_xia`: Xia et al., "Part-dependent label noise", NeurIPS 2020, as in the code of DISC (CVPR 2023).
`lane_*`: the two readings of the sentence on noise in the LANE paper ("randomly shuffle the labels of 20 %",
"are intentionally flipped").
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import scipy

from rayclean.functional.hashing import mix, uniform
from rayclean.functional.types import Ids, Labels

Kind = Literal["sym", "sym_incl", "asym", "asym_map", "idn_softmax", "idn_xia", "lane_shuffle", "lane_flip"]

NEEDS_FEATURES = ("idn_softmax", "idn_xia")
"""Kinds that need `features` [N, S] (`idn_xia`) or class probabilities [N, K] (`idn_softmax`)."""

IDN_STD = 0.1
"""Standard deviation of the flip probability per example (`idn_xia`)."""

IDN_SCALE = 3.0
"""Length of a feature row (`idn_xia`): how peaked the softmax over wrong classes is."""


def is_local(kind: str, exact: bool) -> bool:
    """Whether a kind looks at one example at a time, so that each shard can be corrupted by itself."""
    return kind == "asym_map" or (kind in ("sym", "asym") and not exact)


def corrupt(
    ids: Ids,
    labels: Labels,
    num_classes: int,
    kind: Kind,
    rate: float,
    seed: int,
    *,
    exact: bool = False,
    mapping: Mapping[int, int] | None = None,
    features: npt.NDArray[np.floating] | None = None,
) -> Labels:
    """Noisy labels of the given examples.

    Args:
        ids: [N] example ids, unique.
        labels: [N] in [0, K).
        num_classes: K, at least 2.
        kind: a kind of the table above.
        rate: eta in [0, 1].
        seed: seed of all draws.
        exact: for `sym` and `asym`, flip exactly round(eta N) ids.
        mapping: for `asym_map`, class -> wrong class.
        features: for `idn_xia`, [N, S] numeric features; for `idn_softmax`, [N, K] out-of-fold class
            probabilities.

    Returns:
        [N] int32, in the order of `ids`.

    Raises:
        ValueError: a missing or ill-shaped argument.

    >>> corrupt(np.arange(6), np.array([0, 1, 2, 0, 1, 2], np.int32), 3, "asym", 1.0, seed=0)
    array([1, 2, 0, 1, 2, 0], dtype=int32)
    """
    ids, labels = np.asarray(ids, np.int64), np.asarray(labels, np.int32)
    if num_classes < 2 or ids.shape != labels.shape or ids.ndim != 1:
        raise ValueError(
            f"expected K >= 2 and ids, labels of one shape [N], got K={num_classes}, {ids.shape}, {labels.shape}"
        )
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind of noise {kind!r}; expected one of {get_args(Kind)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(f"labels must be in [0, {num_classes}), got {labels.min()}..{labels.max()}")
    if kind in NEEDS_FEATURES and (features is None or features.ndim != 2 or len(features) != len(ids)):
        raise ValueError(f"{kind} needs features [N, S], got {None if features is None else features.shape}")
    if rate == 0 or len(ids) == 0:
        return labels.copy()
    if kind in ("sym", "asym", "lane_flip"):
        all_or_exact = exact or kind == "lane_flip"
        flip = (
            _first(ids, seed, _round(rate * len(ids)))
            if all_or_exact
            else uniform(ids, seed, "noise flip") < rate
        )
        wrong = (labels + 1) % num_classes if kind == "asym" else _other(ids, labels, num_classes, seed)
        return np.where(flip, wrong, labels).astype(np.int32)
    if kind == "sym_incl":
        any_class = (uniform(ids, seed, "noise class") * num_classes).astype(np.int32)
        return np.where(_first(ids, seed, _floor(rate * len(ids))), any_class, labels).astype(np.int32)
    if kind == "asym_map":
        if not mapping:
            raise ValueError("asym_map needs a mapping of class -> wrong class, got none")
        table = np.arange(num_classes, dtype=np.int32)
        table[list(mapping)] = list(mapping.values())
        return np.where(uniform(ids, seed, "noise flip") < rate, table[labels], labels).astype(np.int32)
    if kind == "lane_shuffle":
        return _permute(ids, labels, seed, _round(rate * len(ids)))
    assert features is not None
    if kind == "idn_softmax":
        return _most_confused(ids, labels, features, seed, _floor(rate * len(ids)))
    return _feature_dependent(ids, labels, num_classes, features, seed, rate)


def expected_rate(
    kind: Kind, rate: float, shares: npt.NDArray[np.float64], mapping: Mapping[int, int] | None = None
) -> float:
    """Share of wrong labels to expect from a requested rate.

    Args:
        kind: kind of noise.
        rate: eta.
        shares: [K] share of each class before the noise.
        mapping: `asym_map` only.

    >>> round(expected_rate("lane_shuffle", 0.2, np.array([0.4, 0.3, 0.2, 0.1])), 4)
    0.14
    >>> round(expected_rate("sym_incl", 0.4, np.full(4, 0.25)), 4)
    0.3
    """
    if kind == "sym_incl":
        return rate * (1 - 1 / len(shares))
    if kind == "lane_shuffle":
        return rate * float(1 - (shares**2).sum())
    if kind == "asym_map":
        return rate * float(shares[list(mapping or {})].sum())
    return rate


def _round(value: float) -> int:
    return int(np.floor(value + 0.5))  # half up; Python's round() would go to even


def _floor(value: float) -> int:
    return int(np.floor(value + 1e-9))  # 0.29 x 100 is 28.999... in floating point


def _first(ids: Ids, seed: int, count: int) -> npt.NDArray[np.bool_]:
    """Whether each id is one of the `count` first in hash order [N]; the hash is a bijection, so there are no
    ties.
    """
    chosen = np.zeros(len(ids), bool)
    chosen[_order(ids, seed, "noise select")[:count]] = True
    return chosen


def _order(ids: Ids, seed: int, purpose: str) -> npt.NDArray[np.int64]:
    return np.argsort(mix(ids, seed, purpose), kind="stable")


def _other(ids: Ids, labels: Labels, num_classes: int, seed: int) -> Labels:
    """A class other than the label, uniformly drawn [N]."""
    step = 1 + (uniform(ids, seed, "noise class") * (num_classes - 1)).astype(np.int32)
    return ((labels + step) % num_classes).astype(np.int32)


def _permute(ids: Ids, labels: Labels, seed: int, count: int) -> Labels:
    """Permute the labels of `count` ids among themselves: the histogram stays as it was, exactly."""
    noisy = labels.copy()
    receivers = _order(ids, seed, "noise select")[:count]
    givers = receivers[_order(ids[receivers], seed, "noise permute")]
    noisy[receivers] = labels[givers]
    return noisy


def _most_confused(
    ids: Ids, labels: Labels, probabilities: npt.NDArray[np.floating], seed: int, count: int
) -> Labels:
    """Flip `count` labels to what a classifier confuses them with.

    First the examples whose most probable class is not their label, surest first; if those are too few, the
    others by the probability of their most probable wrong class (a random one where that probability is 0).
    """
    num_classes = probabilities.shape[1]
    rows = np.arange(len(ids))
    disagree = probabilities.argmax(1) != labels
    others = probabilities.astype(np.float64).copy()
    others[rows, labels] = -1.0
    wrong = others.argmax(1).astype(np.int32)
    score = others[rows, wrong]  # where the argmax is not the label, this is the largest probability
    wrong = np.where(score > 0, wrong, _other(ids, labels, num_classes, seed))
    order = np.lexsort((ids, -score, ~disagree))[:count]
    noisy = labels.copy()
    noisy[order] = wrong[order]
    return noisy


def _feature_dependent(
    ids: Ids, labels: Labels, num_classes: int, features: npt.NDArray[np.floating], seed: int, rate: float
) -> Labels:
    """Flip x with probability q ~ TruncNormal(eta, 0.1) on [0, 1] to a class drawn from softmax(x W_y), y
    excluded.

    W [K, S, K] is standard normal; features are standardised and every row is scaled to length `IDN_SCALE`.
    """
    order = np.argsort(ids)  # floats are summed in one order, whatever the order of the examples
    x = np.asarray(features, np.float64)
    deviation = x[order].std(0)
    x = (x - x[order].mean(0)) / np.where(deviation > 0, deviation, 1)
    x *= IDN_SCALE / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    q = scipy.stats.truncnorm.ppf(
        uniform(ids, seed, "noise rate"), -rate / IDN_STD, (1 - rate) / IDN_STD, loc=rate, scale=IDN_STD
    )
    flip = uniform(ids, seed, "noise flip") < q
    draw = uniform(ids, seed, "noise class")
    noisy = labels.copy()
    for y in np.unique(labels[flip]):
        rows = np.flatnonzero(flip & (labels == y))
        weights = np.random.default_rng([seed & 0xFFFFFFFF, int(y)]).standard_normal(
            (x.shape[1], num_classes)
        )
        logits = x[rows] @ weights
        logits[:, y] = -np.inf
        p = np.exp(logits - logits.max(1, keepdims=True))
        cumulative = np.cumsum(p / p.sum(1, keepdims=True), axis=1)
        chosen = np.minimum((cumulative <= draw[rows, None]).sum(1), num_classes - 1)
        noisy[rows] = np.where(chosen == y, p.argmax(1), chosen)  # rounding at the end of the cumulative sum
    return noisy
