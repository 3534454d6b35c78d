"""What `detect` says of its own figures, where they can hardly be true: alarms, each with the likely cause."""

from collections.abc import Mapping
from typing import Any

_MOST_NOISE = 0.5
"""Above this share of wrong labels, the reason is rather the way in which the data were read than the labels."""
_LEAST_CONFLICTS = 5
"""With fewer wrong labels among copies, detection may miss them by chance."""


def implausible(metrics: Mapping[str, Any], texts: Mapping[str, int]) -> list[str]:
    """Alarms about the findings.

    Args:
        metrics: of the verb.
        texts: how often texts repeat, as `load` has counted (`datasets.shared_texts.TextCounts`); {} where it has not.
    """
    found = []
    examples, rate = metrics["examples"], metrics.get("estimated_noise_rate")
    if rate is not None and rate > _MOST_NOISE:
        same = texts.get("distinct", 0) == 1
        cause = (
            "all texts are equal, so that nothing can be learnt: check dataset.text"
            if same
            else "labels are more likely read wrongly than wrong: check dataset.label and dataset.labels, the order of classes "
            "(predict.columns), and whether texts and labels are of the same rows"
        )
        found.append(f"{rate:.0%} of the labels would be wrong by the estimate of detection: {cause}")
    least = texts.get("least_wrong", 0)
    seen = max([*metrics["votes"].values(), round((rate or 0.0) * examples)])
    if least >= _LEAST_CONFLICTS and 2 * seen < least:
        found.append(
            f"{texts['conflicting']:,} texts have copies with different labels, so at least {least:,} labels are wrong, and "
            f"detection finds {seen:,}: its figures are too low. Copies themselves tell which: "
            'detect.detectors = ["conflicting_copies", "posterior"]'
        )
    return found
