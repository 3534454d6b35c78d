"""What instance-dependent noise needs to know about texts: numbers for `idn_xia`, probabilities for `idn_softmax`.

Both look at all texts at once, in memory: noise that depends on the text is made for experiments on sets of up to
some hundred thousand examples. Examples are put in the order of their ids first, so that shards change nothing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rayclean.functional.hashing import folds

COMPONENTS = 50
FOLDS = 5


def text_features(ids: npt.NDArray[np.int64], texts: Sequence[str], seed: int) -> npt.NDArray[np.float64]:
    """[N, S <= 50] TF-IDF of words, reduced by SVD; in the order of `ids`."""
    order = np.argsort(ids)
    tfidf = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]").fit_transform(
        [texts[i] for i in order]
    )
    size = min(COMPONENTS, tfidf.shape[1] - 1, tfidf.shape[0])
    dense = (
        TruncatedSVD(size, random_state=seed & 0x7FFFFFFF).fit_transform(tfidf)
        if size > 1
        else tfidf.toarray()
    )
    features = np.empty_like(dense)
    features[order] = dense
    return np.asarray(features)


def out_of_fold_probabilities(
    ids: npt.NDArray[np.int64],
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int32],
    num_classes: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    """[N, K] class probabilities of logistic regressions that did not see the example; in the order of `ids`.

    A class that a fold's other examples lack gets probability 0.
    """
    order = np.argsort(ids)
    fold = folds(ids, seed, FOLDS)
    probabilities = np.zeros((len(ids), num_classes))
    for number in range(FOLDS):
        inside, outside = order[fold[order] == number], order[fold[order] != number]
        if not len(inside):
            continue
        classes = np.unique(labels[outside])
        if len(classes) < 2:
            probabilities[inside] = np.bincount(labels, minlength=num_classes) / len(labels)
            continue
        model = LogisticRegression(C=10.0, max_iter=1000).fit(features[outside], labels[outside])
        probabilities[np.ix_(inside, model.classes_)] = model.predict_proba(features[inside])
    return probabilities
