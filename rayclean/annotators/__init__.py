"""Annotators, which answer queries about doubtful labels.

To add one: a file with a subclass of `Annotator`, and a line in `ANNOTATORS`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rayclean.config import Config
from rayclean.plugins import Family, Plugin
from rayclean.schema import Label

if TYPE_CHECKING:
    from rayclean.annotators.base import Annotator

ANNOTATORS: "Family[Annotator]" = Family(
    "annotator",
    {
        "served": "rayclean.annotators.served:ServedAnnotator",
        "openai": "rayclean.annotators.openai:OpenAIAnnotator",
        "knn": "rayclean.annotators.knn:KnnAnnotator",
        "simulated": "rayclean.annotators.simulated:SimulatedAnnotator",
    },
)


def build_annotator(config: Config, labels: Sequence[Label]) -> "Annotator":
    """The annotator that a config chooses, not yet started; without labels it can only be checked.

    Raises:
        ConfigError: an unknown name or option.
    """
    options = config.annotator.options
    cls: Any = ANNOTATORS.resolve(config.annotator.name)
    if "server" in cls.Config.model_fields:  # the size of the server on this cluster changes no answer
        options["server"] = {**options.get("server", {}), **config.cluster.llm.model_dump(exclude_none=True)}
    return ANNOTATORS.build(Plugin(name=config.annotator.name, **options), labels, config.seed)
