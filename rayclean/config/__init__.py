"""The configuration of a run: typed, frozen, checked before anything expensive starts.

A config is a sparse TOML file over the defaults written here; machines write JSON. Dotted overrides come
last: `rayclean clean configs/quickstart.toml configs/cluster/one-gpu.toml detect.budget=0.05`. Every section
is named after the verb that reads it, so that changing a key re-runs that verb and those after it, never
those before.

Sections whose `name` chooses a plug-in (`[encoder] [annotator] [method]`, the entries of `detect.detectors`)
take the plug-in's own options beside the name; the options are declared and documented in the plug-in's file.
`rayclean options` lists all of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from rayclean.config.arguments import as_overrides, as_values, config_values
from rayclean.config.cluster_section import ClusterConfig, LLMSize
from rayclean.config.credentials import refuse_credentials
from rayclean.config.dataset_section import DatasetConfig, NoiseConfig, Split
from rayclean.config.export_section import ExportConfig
from rayclean.config.run_name import WITHOUT_FILE, name_of_file
from rayclean.config.verb_sections import (
    AuditConfig,
    CertifyConfig,
    DetectConfig,
    EvaluateConfig,
    PredictConfig,
    RelabelConfig,
    TrainConfig,
    TrainingConfig,
)
from rayclean.errors import ConfigError
from rayclean.overrides import apply_override
from rayclean.plugins import Options, Plugin, explain

__all__ = [
    "AuditConfig",
    "CertifyConfig",
    "ClusterConfig",
    "Config",
    "DatasetConfig",
    "DetectConfig",
    "EvaluateConfig",
    "ExportConfig",
    "LLMSize",
    "NoiseConfig",
    "Plugin",
    "PredictConfig",
    "RelabelConfig",
    "Split",
    "TrainConfig",
    "TrainingConfig",
    "load_config",
    "parse_config",
    "require_config",
]

CONFIG_VERSION = 1
"""Version of the config's meaning; a config that names another one is refused."""


class Config(Options):
    """The configuration of a whole run; `load_config` reads one from TOML or JSON and applies overrides."""

    version: int = CONFIG_VERSION
    """Version of the config's meaning; a file of another version is refused."""
    name: str = Field(WITHOUT_FILE, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: artifacts go to `<output>/<name>/`. Without it, the config file's own name (`tickets` for
    `tickets.toml`); `run` for a config that comes from no file."""
    output: str = "runs"
    """Folder of all runs, on any file system that fsspec knows."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of everything random."""
    task: Plugin = Plugin(name="classification")
    """What a label is (`rayclean/tasks/`)."""
    dataset: DatasetConfig
    """The labelled data set; its `path` is the only key without a default."""
    encoder: Plugin = Plugin(name="transformer")
    """The network that reads text (`rayclean/models/`)."""
    predict: PredictConfig = PredictConfig()
    """Self-prediction: how a model predicts the examples it was trained on."""
    detect: DetectConfig = DetectConfig()
    """Which examples are doubtful."""
    annotator: Plugin = Plugin(name="posterior")
    """Who answers the questions about doubtful labels (`rayclean/annotators/`)."""
    relabel: RelabelConfig = RelabelConfig()
    """What the annotator is asked and when its answer is taken."""
    method: Plugin = Plugin(name="cross_entropy")
    """How to train in spite of noise (`rayclean/methods/`, one file per paper)."""
    train: TrainConfig = TrainConfig()
    """The final training, by the configured method."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What is measured at the end."""
    audit: AuditConfig = AuditConfig()
    """Which labels a person is asked about, to measure what cleaning did."""
    export: ExportConfig | None = None
    """Where `clean` writes the data set with its final labels, if anywhere: `export = "cleaned.parquet"`."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the work runs."""

    @model_validator(mode="before")
    @classmethod
    def _no_credentials(cls, values: Any) -> Any:
        """First of all, since the message about any other fault shows the value."""
        return refuse_credentials(values)

    @field_validator("task", "encoder", "annotator", "method", mode="before")
    @classmethod
    def _name_by_default(cls, value: Any, info: ValidationInfo) -> Any:
        """Options without a name belong to the default plug-in: `annotator.max_queries=100`."""
        if isinstance(value, dict) and "name" not in value:
            default = cls.model_fields[str(info.field_name)].default
            return {"name": default.name, **value}
        return value

    @field_validator("version")
    @classmethod
    def _version_known(cls, version: int) -> int:
        if version != CONFIG_VERSION:
            raise ValueError(
                f"this rayclean reads version {CONFIG_VERSION}, the config says {version}; "
                "see CHANGELOG.md for what changed, or install the rayclean that wrote it"
            )
        return version


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file (.toml by hand, .json by machine) and apply overrides, in order.

    Args:
        path: the file. A data file stands for a config that names only it, if overrides name its columns:
            `load_config("tickets.csv", ["dataset.text=body", "dataset.label=topic"])`.
        overrides: strings like `detect.budget=0.05`, whose value is read as TOML and, where it is no TOML, as
            a string; or further config files, laid over what came before (`configs/cluster/one-gpu.toml`).

    Raises:
        ConfigError: the file cannot be read, or a key or a value is wrong.
        TypeError: an argument is of another type; the message has the right call.
    """
    given = as_overrides(overrides)
    return parse_config(config_values(path, given), given, str(path), name=name_of_file(path))


def parse_config(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    where: str = "config",
    *,
    name: str = WITHOUT_FILE,
) -> Config:
    """A checked config from plain values and overrides.

    Args:
        values: as a config file holds them.
        overrides: as in `load_config`.
        where: where the values come from, for messages.
        name: of the run, if neither the values nor an override say one.

    Raises:
        ConfigError: a key or a value is wrong.
        TypeError: an argument is of another type; the message has the right call.
    """
    given = as_overrides(overrides)
    own = {"name": name, **as_values(values)}  # a copy: overrides must not touch the caller's values
    for override in given:
        apply_override(own, override)
    try:
        return Config(**as_values(own))
    except ValidationError as error:
        raise ConfigError(explain(error, Config, where)) from None


def require_config(config: Any) -> None:
    """Refuse what is no `Config` where one is expected.

    Raises:
        TypeError: the message has the call that makes one of what was given.
    """
    if isinstance(config, Config):
        return
    if isinstance(config, str | Path):
        right = f"rayclean.load_config({str(config)!r})"
    elif isinstance(config, Mapping):
        right = "rayclean.parse_config({...})"
    else:
        right = "rayclean.parse_config({'dataset': {'path': 'data.parquet'}}) once the table is a file"
    raise TypeError(f"expected a rayclean.Config, got {type(config).__name__}: give {right}")
