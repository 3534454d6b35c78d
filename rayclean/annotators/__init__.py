"""Annotators answer queries about doubtful labels.

To add an annotator, write a file with a subclass of `Annotator` and add a line to `ANNOTATORS`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.plugins import Family, Plugin
from rayclean.schema import Label
from rayclean.tasks import TASKS

if TYPE_CHECKING:
    from rayclean.annotators.base import Annotator
    from rayclean.tasks.base import Task

ANNOTATORS: "Family[Annotator]" = Family(
    "annotator",
    {
        "posterior": "rayclean.annotators.posterior:PosteriorAnnotator",
        "served": "rayclean.annotators.served:ServedAnnotator",
        "openai": "rayclean.annotators.openai:OpenAIAnnotator",
        "knn": "rayclean.annotators.knn:KnnAnnotator",
        "simulated": "rayclean.annotators.simulated:SimulatedAnnotator",
    },
)


def relabel_annotators(config: Config) -> tuple[Plugin, ...]:
    """Names and options of the annotators that `relabel` asks, in order."""
    return config.relabel.annotators or (config.annotator,)


def build_annotator(
    config: Config, labels: Sequence[Label], plugin: Plugin | None = None, task: "Task | None" = None
) -> "Annotator":
    """An annotator, not yet started; without labels it can only be checked.

    Args:
        config: of the run.
        labels: all answers of the task.
        plugin: name and options of the annotator; None: `config.annotator`.
        task: makes units of the true labels that a simulated annotator reads; None: examples are the units.

    Raises:
        ConfigError: the name or an option is unknown, or the prompt form does not suit the task.
    """
    plugin = plugin or config.annotator
    options = plugin.options
    cls: Any = ANNOTATORS.resolve(plugin.name)
    texts = not TASKS.resolve(config.task.name).candidates_are_labels
    if texts and "form" in cls.Config.model_fields and options.setdefault("form", "choice") == "label_words":
        raise ConfigError(
            "annotator.form = 'label_words' scores the words of labels, but the candidates of the task "
            f"{config.task.name!r} are texts of their own: set annotator.form = 'choice', or leave it out"
        )
    if "server" in cls.Config.model_fields:  # no answer depends on the size of the server on this cluster
        options["server"] = {**options.get("server", {}), **config.cluster.llm.model_dump(exclude_none=True)}
    annotator = ANNOTATORS.build(Plugin(name=plugin.name, **options), labels, config.seed)
    annotator.task = task
    return annotator


def asked_annotators(config: Config) -> "list[Annotator]":
    """The distinct annotators that a run may ask: those of `relabel`, and the one that methods ask."""
    plugins = [*relabel_annotators(config), config.annotator]
    distinct = {plugin.model_dump_json(): plugin for plugin in plugins}
    return [build_annotator(config, (), plugin) for plugin in distinct.values()]
