"""The experts of `predict`: whoever predicts a label out of fold, and the mean of what they say.

The classifier is always one (`predict_classifier.py`). Beside it, `neighbours` takes the labels of the nearest other
examples, and `words` is a linear model of the words. They err differently, so their mean ranks wrong labels better than
any of them (`rayclean.experts`).
"""

from functools import partial
from typing import Any

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.experts.mean import Mixture, fit_mixture
from rayclean.folder import Folder
from rayclean.progress import progress_bar
from rayclean.runtime.engines import Engines
from rayclean.runtime.shard_figures import count_rows, label_figures, sum_figures
from rayclean.tasks import TASKS

CLASSIFIER = "classifier"
FURTHER = ("neighbours", "words")
"""Experts beside the classifier, in the order of the mean."""


def chosen_experts(config: Config) -> tuple[str, ...]:
    """The experts beside the classifier.

    Raises:
        ConfigError: experts are named, and labels are not one class.
    """
    one_class = TASKS.resolve(config.task.name).label_form == "class"
    named = config.predict.experts
    if named and not one_class:
        raise ConfigError(
            f"predict.experts: {', '.join(named)} know one class per example, which the task {config.task.name!r} "
            "does not have; leave it out"
        )
    if named is not None:
        return tuple(name for name in FURTHER if name in named)
    return () if True else FURTHER if one_class and config.predict.mode != "given" else ()


def mix_experts(
    config: Config, engines: Engines, examples: Folder, out: Folder, classes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the experts beside the classifier, and write the mean of all to `predictions/`.

    Args:
        config: of the run.
        engines: engines that run the work.
        examples: folder of example shards.
        out: folder of the verb, with `experts/classifier/`, `features/` and `folds/`.
        classes: number of classes.

    Returns:
        Figures of the mixture (`experts.mean.fit_mixture`), and the sums of `label_figures` of the mean.
    """
    names, total = (CLASSIFIER, *chosen_experts(config)), count_rows(examples)
    shards, predictions = examples.shards(), out.sub("predictions")
    urls = {name: out.url("experts", name) for name in names}
    mixture, fitted = fit_mixture(
        urls, shards, engines.map_items, config.seed, total, classes, config.predict.folds
    )
    with progress_bar("predict", total, "examples") as bar:
        mean = sum_figures(engines.map_items(partial(_write_mean, mixture, predictions.url()), shards), bar)
    return fitted, {name: mean[name] for name in ("labelled", "correct", "log_loss")}


def _write_mean(mixture: Mixture, out: str, shard: str) -> dict[str, float]:
    table = mixture.table(shard)
    Folder(out).write_table(table, shard)
    return {"rows": len(table), "resumed": 0, **label_figures(table)}
