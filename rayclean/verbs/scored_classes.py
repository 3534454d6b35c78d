"""The classes of data that a trained classifier scores: its own, since the rows need no labels."""

from rayclean.config import Config
from rayclean.models.loading import describe_encoder


def is_scored(config: Config) -> bool:
    """Whether a trained classifier predicts, so that examples need no label."""
    return config.predict.mode == "model"


def classes_of_classifier(config: Config) -> tuple[str, ...] | None:
    """The classes of the classifier that predicts; None without one, or where the config names the label set.

    Raises:
        ArtifactError: `predict.model` is no trained classifier.
    """
    if not is_scored(config) or config.dataset.labels is not None:
        return None
    assert config.predict.model is not None
    return tuple(describe_encoder(config.predict.model)["labels"])


def with_classes_of_classifier(config: Config) -> Config:
    """The config with the label set of the classifier that predicts, if there is one.

    Raises:
        ArtifactError: `predict.model` is no trained classifier.
    """
    classes = classes_of_classifier(config)
    if classes is None:
        return config
    return config.model_copy(update={"dataset": config.dataset.model_copy(update={"labels": classes})})
