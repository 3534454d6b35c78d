"""What became of every class: rare ones are eaten first, and a figure over all classes does not show it."""

from collections.abc import Sequence
from typing import Any

from rayclean.evaluation.counts import RunCounts


def class_figures(counts: RunCounts, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of every class that occurs, in the order of the label set: its name; labels `before` and `after`; changed `out` of it
    and `into` it; and where the truth is known the labels of it that were `right` and that were `wrong` as given, the
    right ones that were `harmed` (made wrong) and the wrong ones that were `repaired` (made right).

    Args:
        counts: of the run.
        names: of all answers, by index.
    """
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            **dict.fromkeys(("before", "after", "out", "into", "right", "wrong", "harmed", "repaired"), 0),
        }
        for name in names
    ]
    for (given, final), count in counts.given_final.items():
        rows[given]["before"] += count
        rows[final]["after"] += count
        if given != final:
            rows[given]["out"] += count
            rows[final]["into"] += count
    for (given, true), count in counts.given_true.items():
        rows[given]["right" if given == true else "wrong"] += count
    for (given, final, true), count in counts.given_final_true.items():
        if given == true != final:
            rows[given]["harmed"] += count
        elif given != true == final:
            rows[given]["repaired"] += count
    return [row for row in rows if row["before"] or row["after"]]
