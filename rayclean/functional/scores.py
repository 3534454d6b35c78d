"""Label quality of one example at a time, from its probabilities or its predicted label.

Every score is in [0, 1] and has cleanlab's direction: **lower = more likely wrong**. N examples, K classes.
"""

import numpy as np
import numpy.typing as npt

from rayclean.functional.types import Labels, Probabilities


def self_confidence(labels: Labels, probabilities: Probabilities) -> npt.NDArray[np.float32]:
    """The probability of the given label: p[y].

    Args:
        labels: [N] given labels, in [0, K).
        probabilities: [N, K], rows sum to 1.

    Returns:
        [N] quality.

    >>> self_confidence(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]], dtype=np.float32))
    array([0.75, 0.25], dtype=float32)

    Reference: Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021, section 3; `cleanlab.rank`.
    """
    chosen = np.take_along_axis(probabilities, np.asarray(labels)[:, None].astype(np.intp), axis=1)[:, 0]
    return np.clip(chosen, 0, 1)  # a softmax in float32 may exceed 1 by a rounding error


def normalized_margin(labels: Labels, probabilities: Probabilities) -> npt.NDArray[np.float32]:
    """The lead of the given label over the best other one, moved to [0, 1]: (p[y] - max over j != y of p[j] +
    1) / 2.

    Below 0.5 another class is more probable than the given one.

    Args:
        labels: [N] given labels, in [0, K).
        probabilities: [N, K], K >= 2, rows sum to 1.

    Returns:
        [N] quality.

    >>> normalized_margin(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]], dtype=np.float32))
    array([0.75, 0.25], dtype=float32)

    Reference: `cleanlab.rank.get_normalized_margin_for_each_label`.
    """
    index = np.asarray(labels)[:, None].astype(np.intp)
    others = probabilities.copy()
    np.put_along_axis(others, index, -np.inf, axis=1)
    given = np.take_along_axis(probabilities, index, axis=1)[:, 0]
    return np.asarray(np.clip((given - others.max(axis=1) + 1) / 2, 0, 1))


def disagreement(labels: Labels, predicted: Labels) -> npt.NDArray[np.float32]:
    """1 where the predicted label is the given one, 0 where it is not.

    Args:
        labels: [N] given labels.
        predicted: [N] predicted labels.

    Returns:
        [N] quality.

    >>> disagreement(np.array([0, 1]), np.array([0, 2]))
    array([1., 0.], dtype=float32)
    """
    return np.equal(labels, predicted).astype(np.float32)
