"""Features for instance-dependent noise: TF-IDF for `idn_xia`, class probabilities for `idn_softmax`.

Both take all texts at once, in memory: noise that depends on the text is meant for experiments on up to some
hundred thousand examples. Examples are processed in the order of their ids, so that results do not depend on
shards.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rayclean.functional.hashing import folds

_COMPONENTS = 50
_FOLDS = 5


def text_features(ids: npt.NDArray[np.int64], texts: Sequence[str], seed: int) -> npt.NDArray[np.float64]:
    """[N, S <= 50] TF-IDF of words, reduced by a singular value decomposition; in the order of `ids`."""
    from sklearn.decomposition import TruncatedSVD  # takes a second, and few data sets get such noise
    from sklearn.feature_extraction.text import TfidfVectorizer

    order = np.argsort(ids)
    tfidf = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]").fit_transform(
        [texts[i] for i in order]
    )
    size = min(_COMPONENTS, tfidf.shape[1] - 1, tfidf.shape[0])
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
    """[N, K] class probabilities by logistic regressions that did not see the example; in the order of `ids`.

    A class that no example of the other folds has gets probability 0.
    """
    from sklearn.linear_model import LogisticRegression

    order = np.argsort(ids)
    fold = folds(ids, seed, _FOLDS)
    probabilities = np.zeros((len(ids), num_classes))
    for number in range(_FOLDS):
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
