"""How many labels may leave a class, so that many unsure changes do not eat a rare one.

B suspects, K classes. P is the probability that the label suggested for a suspect is right (`decision.py`).
"""

import numpy as np
import scipy

from rayclean.functional.decision import Decision
from rayclean.functional.hashing import mix
from rayclean.functional.types import Floats, Ids, Ints, Labels
from rayclean.functional.worth import CONFIDENCE


def supported_changes(probability: Floats, given: Labels, num_classes: int) -> Ints:
    """How many labels may leave each class [K]: the upper end of the number of its right suggestions.

    sum P + 1.645 sqrt(sum P (1 - P)) over all suspects of the class, rounded down. Changing every label with
    P > .5 takes more from a class than are expected to be wrong in it, which eats classes whose suspects are many
    and unsure (rare ones, mostly).

    >>> supported_changes(np.array([0.6] * 100 + [0.9] * 10), np.array([0] * 100 + [1] * 10), 3)
    array([68, 10,  0])
    """
    probability = np.asarray(probability, dtype=np.float64)
    mean = np.bincount(given, weights=probability, minlength=num_classes)
    variance = np.bincount(given, weights=probability * (1 - probability), minlength=num_classes)
    return np.asarray(np.floor(mean + scipy.stats.norm.ppf(CONFIDENCE) * np.sqrt(variance)), dtype=np.int64)


def cap_changes_out(
    decision: Ints, given: Labels, probability: Floats, example_ids: Ids, most: Ints, seed: int = 0
) -> Ints:
    """The decisions [B] with at most `most[k]` labels changed out of class k: the most probable ones, others are referred.

    Args:
        decision: [B] one of `Decision`.
        given: [B] given labels.
        probability: [B] P that the suggestion is right.
        example_ids: [B] ids; a hash of them decides between equal probabilities.
        most: [K] largest number of changes out of each class.
        seed: the run's seed.
    """
    changed = np.flatnonzero(np.asarray(decision) == Decision.CHANGED)
    labels = np.asarray(given)[changed]
    ties = mix(np.asarray(example_ids)[changed], seed, "cap_changes_out")
    order = np.lexsort((ties, -np.asarray(probability)[changed], labels))
    labels = labels[order]
    place = np.arange(len(labels)) - np.searchsorted(labels, labels)
    capped = np.array(decision)
    capped[changed[order][place >= np.asarray(most)[labels]]] = Decision.REFERRED
    return capped
