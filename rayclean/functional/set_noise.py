"""Noise in sets of classes for experiments: classes that apply are dropped, others are added.

Every draw is a hash of (`example_id`, seed, class), so that the result depends neither on the order of the examples nor on
how they are cut into shards.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.hashing import uniform
from rayclean.functional.types import Ids


def corrupt_sets(
    ids: Ids, applies: npt.NDArray[np.bool_], shares: npt.NDArray[np.float64], rate: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Sets of classes with symmetric noise: of each class as many are added as are dropped, in expectation.

    With s_c the share of examples that class c applies to and eta the rate, a bit (example, class c) is flipped with the
    probability

        1 -> 0    eta
        0 -> 1    min(1, eta s_c / (1 - s_c)),   so that N s_c eta examples lose c and N (1 - s_c) eta s_c / (1 - s_c) =
                  N s_c eta others get it; fewer than that where s_c > 1 / (1 + eta) (not all that lack c are enough)

    Args:
        ids: [N] example ids, unique.
        applies: [N, K] whether a class applies to an example.
        shares: [K] s_c over all examples, of which `applies` may be a part.
        rate: eta in [0, 1].
        seed: seed of all draws.

    Returns:
        [N, K], in the order of `ids`.

    >>> corrupt_sets(np.arange(3), np.array([[1, 0], [1, 0], [0, 0]], bool), np.array([0.5, 0.0]), 1.0, seed=0).tolist()
    [[False, False], [False, False], [True, False]]
    """
    noisy = applies.copy()
    for c, added in enumerate(added_share(shares, rate)):
        noisy[:, c] ^= uniform(ids, seed, f"noise of class {c}") < np.where(applies[:, c], rate, added)
    return noisy


def added_share(shares: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.float64]:
    """Share [K] of the examples without a class that get it: min(1, eta s_c / (1 - s_c)).

    >>> added_share(np.array([0.0, 0.2, 0.5, 1.0]), 0.5).tolist()
    [0.0, 0.125, 0.5, 1.0]
    """
    lacking = np.maximum(1 - shares, 1e-12)
    return np.asarray(np.minimum(1.0, rate * shares / lacking))
