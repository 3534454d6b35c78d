"""How well rankings of the same predictions find wrong labels, each with its interval; used by real_noise.py.

posterior                what rayclean ranks by
margin                   probability of the given label less the highest other one, of the mean of all experts
margin, classifier       the same of the classifier alone (as most tools rank)
class-adjusted margin    the same after dividing by each class's mean probability among its own labels (cleanlab's adjustment)
cleanlab                 cleanlab.rank.get_label_quality_scores, normalised margin, adjusted
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import roc_auc_score

from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.schema import matrix

SHARE = 0.1
DRAWS = 300
Floats = npt.NDArray[np.floating[Any]]


def rankings(run: Run, classifier: Run, truth: dict[int, int]) -> dict[str, Any]:
    """ROC-AUC and precision at 10 % of every ranking, with 95 % intervals of a bootstrap over examples.

    Args:
        run: of all experts.
        classifier: the same without the other experts.
        truth: true label by example, where known.
    """
    ids, given, probabilities = _predictions(run.require("predict").sub("predictions"))
    true = np.array([truth.get(int(key), -1) for key in ids])
    known = true >= 0
    wrong = (given != true)[known]
    scores = {
        "posterior": _quality(run, ids),
        "margin": _margin(given, probabilities),
        "class-adjusted margin": _margin(given, _adjusted(given, probabilities)),
        "cleanlab": get_label_quality_scores(
            given, probabilities, method="normalized_margin", adjust_pred_probs=_covers(given, probabilities)
        ),
    }
    other, _, alone = _predictions(classifier.require("predict").sub("predictions"))
    order = np.argsort(other)[np.argsort(np.argsort(ids))]
    scores["margin, classifier"] = _margin(given, alone[order])
    return {name: _figures(score[known], wrong) for name, score in scores.items()}


def _predictions(folder: Folder) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    tables = [folder.read_table(shard) for shard in folder.shards()]
    ids = np.concatenate([table["example_id"].to_numpy() for table in tables])
    given = np.concatenate([table["given_label"].to_numpy() for table in tables])
    return (
        ids,
        given.astype(np.int64),
        np.concatenate([matrix(table["probabilities"]) for table in tables]).astype(np.float64),
    )


def _quality(run: Run, ids: npt.NDArray[np.int64]) -> Floats:
    detect = run.require("detect")
    found: dict[int, float] = {}
    for shard in detect.shards("findings"):
        table = detect.read_table("findings", shard, columns=["example_id", "quality"])
        found.update(zip(table["example_id"].to_pylist(), table["quality"].to_pylist(), strict=True))
    return np.array([found[int(key)] for key in ids])


def _margin(given: npt.NDArray[np.int64], probabilities: Floats) -> Floats:
    rows = np.arange(len(given))
    own, rest = probabilities[rows, given], probabilities.copy()
    rest[rows, given] = -np.inf
    return own - rest.max(axis=1)


def _adjusted(given: npt.NDArray[np.int64], probabilities: Floats) -> Floats:
    means = [
        probabilities[given == label, label].mean() if (given == label).any() else 1.0
        for label in range(probabilities.shape[1])
    ]
    shifted = probabilities - np.array(means) + max(means)
    return shifted / shifted.sum(axis=1, keepdims=True)


def _covers(given: npt.NDArray[np.int64], probabilities: Floats) -> bool:
    return len(np.unique(given)) == probabilities.shape[1]


def _figures(quality: Floats, wrong: npt.NDArray[np.bool_]) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)

    def both(rows: npt.NDArray[np.int64]) -> tuple[float, float]:
        top = rows[np.argsort(quality[rows], kind="stable")[: max(1, round(SHARE * len(rows)))]]
        if len(np.unique(wrong[rows])) < 2:
            return float("nan"), float(wrong[top].mean())
        return float(roc_auc_score(wrong[rows], -quality[rows])), float(wrong[top].mean())

    draws = np.array([both(rng.integers(0, len(wrong), len(wrong))) for _ in range(DRAWS)])
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    value = both(np.arange(len(wrong)))
    return {
        name: [round(float(each[place]), 4) for each in (value, low, high)]
        for place, name in enumerate(("roc_auc", "precision_at_10"))
    }
