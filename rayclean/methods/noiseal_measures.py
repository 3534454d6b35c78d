"""What the report shows of NoiseAL: R, H and P, the answers, and how sure each network is of each label."""

from collections.abc import Sequence

from rayclean.functional.partition import Subset
from rayclean.measures import HIGHEST_LOSS, AnswerColumn, Histogram, Measures, SubsetColumn

SUBSETS = SubsetColumn(
    column="subset",
    values={subset.name.lower(): subset for subset in (Subset.CLEAN, Subset.HARD, Subset.PURIFIED)},
)
"""R, H and P."""


def noiseal_measures(networks: Sequence[str]) -> Measures:
    """The measures of a training of these networks, `strong` and `weak` or one of them.

    The noise of the purified is shown before and after the annotator: the paper's 17.89 % and 14.54 %.
    """
    histograms: dict[str, Histogram] = {}
    for name in networks:
        histograms[name] = Histogram(
            title=f"{name.capitalize()} network",
            means=f"Probability that the {name} network gives the label, after the epoch.",
            axis="probability of the label",
            columns=(f"label_probability_{name}",),
        )
        histograms |= _loss_and_confidence(
            name, f"{name.capitalize()} network", (name,), f"confidence_{name}"
        )
    if len(networks) > 1:
        histograms["co_prediction"] = Histogram(
            title="Co-prediction",
            means="The mean of both networks. Wrong labels should gather on the left, right ones on the right.",
            axis="probability of the label",
            columns=tuple(f"label_probability_{name}" for name in networks),
        )
        histograms |= _loss_and_confidence("co_prediction", "Co-prediction", networks, "confidence")
    answers = AnswerColumn(column="answer", replace=(Subset.PURIFIED.name.lower(),))
    return Measures(histograms=histograms, subsets=SUBSETS, answers=answers)


def _loss_and_confidence(
    key: str, title: str, networks: Sequence[str], confidence: str
) -> dict[str, Histogram]:
    """Loss and confidence of one network, or of both together, on which the verdicts rest."""
    return {
        f"{key}_loss": Histogram(
            title=f"{title}: loss",
            means="Minus the logarithm of the label's probability. Wrong labels should gather on the right.",
            axis="loss",
            columns=tuple(f"label_probability_{name}" for name in networks),
            minus_log=True,
            top=HIGHEST_LOSS,
            bounded=False,
        ),
        f"{key}_confidence": Histogram(
            title=f"{title}: confidence",
            means="The highest probability of any class, which the thresholds follow.",
            axis="confidence",
            columns=(confidence,),
        ),
    }
