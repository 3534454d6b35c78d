"""What a sweep file says: a base config, fields and the values they take, seeds, objectives, how trials are run.

    name = "lambda"
    base = "../trec6/noiseal.toml"
    seeds = [0, 1, 2]

    [set]                                  # the same in every trial; quotes around paths are optional
    "train.labels" = "given"

    [space]                                # any path of the config
    "method.lambda_" = { grid = [0.1, 0.3, 0.5, 0.7, 0.9] }
    "dataset.noise.rate" = { grid = [0.2, 0.4] }

A trial is one point of the space under one seed. Its name is a hash of its config, so a sweep that was killed, or one
that grew, finds the trials that are finished.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from rayclean.config import Config, Plugin
from rayclean.errors import ConfigError
from rayclean.overrides import assignments, is_file, read_values, set_path
from rayclean.plugins import Options, did_you_mean, explain

OBJECTIVES: dict[str, Literal["max", "min"]] = {
    "dev_accuracy": "max",
    "dev_loss": "min",
    "asked": "min",
    "changed": "min",
    "tokens": "min",
    "cost": "min",
    "seconds": "min",
}
"""What may decide between trials, and which way is better: nothing here is measured on the test set or on the truth."""


class Dimension(Options):
    """The values that one field takes: one of `grid`, `choice`, `uniform`, `log_uniform`, `integer`."""

    grid: tuple[Any, ...] | None = Field(None, min_length=1)
    """Every one of these values, with every value of the other grids."""
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    """One of these, drawn anew for each sample."""
    uniform: tuple[float, float] | None = None
    """A number between the two."""
    log_uniform: tuple[float, float] | None = None
    """A number between the two, its logarithm uniform."""
    integer: tuple[int, int] | None = None
    """A whole number between the two, both included."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Only where other swept fields have these values (a value, or a list of them); elsewhere the field keeps its
    base value."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        kinds = ("grid", "choice", "uniform", "log_uniform", "integer")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"say exactly one of {', '.join(kinds)}, got {given or 'none'}")
        for kind in ("uniform", "log_uniform", "integer"):
            bounds = getattr(self, kind)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{kind} = [low, high] needs low < high, got {list(bounds)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs positive bounds, got {list(self.log_uniform)}")
        return self

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn rather than gone through."""
        return self.grid is None


class Objective(Options):
    """What decides between trials."""

    metric: str
    """One of `OBJECTIVES`: measured on development examples (their given labels, or declared clean), or a cost."""
    mode: Literal["max", "min"]

    @model_validator(mode="before")
    @classmethod
    def _name_is_enough(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"metric": value}
        if isinstance(value, dict) and isinstance(value.get("metric"), str):
            value = {
                "mode": OBJECTIVES.get(value["metric"], "max"),
                **value,
            }  # an unknown one is refused by its name
        return value

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in OBJECTIVES:
            raise ValueError(
                f"{metric!r} cannot decide between trials (figures of the test set or of the truth are shown, "
                f"never chosen by): {did_you_mean(metric, list(OBJECTIVES))}"
            )
        return metric


class Scheduler(Options):
    """Which trials that train are stopped early, by the first objective after every epoch but the last. A sweep that was
    interrupted compares with the trials of its new attempt alone: it may stop others than a sweep that ran through.
    """

    name: Literal["none", "asha", "median"] = "none"
    """`asha`: successive halving (Li et al., 2018); `median`: worse than the median of the others so far."""
    grace: int = Field(1, ge=1)
    """Epochs that every trial may run."""
    reduction: int = Field(3, ge=2)
    """`asha` only: one of so many goes on."""
    plateau: int | None = Field(None, ge=2)
    """Stop a trial whose objective has not moved by .001 for so many epochs. It counts as converged: it may be chosen as
    best, by the figures of its last epoch; it is not tested against the reference, whose figures are of a best epoch, and
    has none of what is measured after training."""


class Trials(Options):
    """How trials are run; changes no result."""

    concurrent: int | None = Field(None, ge=1)
    """At once; `None`: as many as fit."""
    cpus: float = Field(0.1, gt=0)
    """That a trial itself holds, beside those of its training workers: a trial that trains mostly waits."""
    seconds: float | None = Field(None, gt=0)
    """Stop starting and running trials after so long; the same command goes on. The clock starts with the first trial: what
    trials share, which runs before, and the start of a language model always run to their end."""
    retries: int = Field(1, ge=0)
    """Of a trial whose process or node was lost."""


class Tracking(Options):
    """Where trials are logged while they run; changes no result."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """`auto`: what WANDB_MODE says, if it is set; else online with WANDB_API_KEY, offline without (`wandb sync` later), off
    where wandb is not installed."""
    project: str = "rayclean"
    """Of W&B."""
    changes: int = Field(0, ge=0)
    """So many changed labels of every trial go to W&B as a table, with their texts; 0: none leave the run."""
    loggers: tuple[str, ...] = ()
    """Further loggers of Ray Tune, as `module:Class`; `ray.tune.logger:TBXLoggerCallback` writes TensorBoard files. They hear
    of a trial's swept values, seed, name, epochs and result, and write to `loggers/trials/<name>/`, anew when the trial begins
    anew. Less than W&B has: the whole config and tables of changed labels are not logged, nor are trials that were finished
    before the logger was named, or in the moment before a kill. Points drawn by Optuna have folders with names of Tune's own,
    and one that was killed leaves its own. A logger that sends elsewhere decides itself whether a trial that begins anew is
    another run there."""


class Sweep(Options):
    """A whole sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its artifacts go to `<output>/<name>/`, its runs on W&B into a group of this name."""
    output: str = "sweeps"
    """Folder of all sweeps, on any file system that fsspec knows."""
    base: str
    """Config that trials differ from; relative to the sweep file."""
    base_shown: str | None = None
    """What the report and its commands call the base, where it lies under another name than here (a submitted sweep); `None`:
    `base`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides that hold in every trial. A table with a `name` replaces the whole plug-in, any other one only says
    some keys of its section."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Path of the config -> its values."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Every point is run under every one of these seeds."""
    samples: int = Field(1, ge=1)
    """Draws for each point of the grids; with `search = "optuna"` the number of points in all."""
    search: Literal["random", "optuna"] = "random"
    """How drawn values are chosen. `optuna`: by the objectives of the points before (TPE, Bergstra et al., 2011)."""
    draw_seed: int = 0
    """Seed of the draws themselves."""
    objectives: tuple[Objective, ...] = ()
    """What decides; several give a Pareto front. Empty: nothing is chosen, the table shows everything."""
    trains: bool | None = None
    """Whether trials train a model at the end; `None`: if a swept field or an objective has to do with training."""
    scheduler: Scheduler = Scheduler()
    trials: Trials = Trials()
    tracking: Tracking = Tracking()

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("trials", "tracking", "output", "base_shown")

    @field_validator("space", mode="before")
    @classmethod
    def _quotes_are_optional(cls, space: Any) -> Any:
        if not isinstance(space, dict):
            return space
        flat = dict(_flat(space))
        for path, value in flat.items():
            if not isinstance(value, dict | Dimension):
                raise ValueError(f"{path}: expected a table like {{ grid = [...] }}, got {value!r}")
        return flat

    @field_validator("set", mode="before")
    @classmethod
    def _sections_are_paths(cls, values: Any) -> Any:
        return settings(values) if isinstance(values, dict) else values

    @field_validator("objectives", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict) else value

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"name each seed once, got {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> "Sweep":
        if "seed" in (*self.set, *self.space):
            raise ValueError("a trial has its seed from `seeds`: write it there, not in [set] or [space]")
        for path, dimension in self.space.items():
            if path.split(".")[0] in ("name", "output", "cluster", "evaluate"):
                raise ValueError(f"{path} changes no result; set it for all trials in [set]")
            if path in self.set:
                raise ValueError(f"{path} stands both in [set] and in [space]")
            if unknown := [other for other in dimension.when if other not in self.space or other == path]:
                raise ValueError(f"{path}: `when` names {unknown}, which are no other swept fields")
            for other, wanted in dimension.when.items():
                _can_hold(path, other, wanted, self.space[other])
        before = list(self.set)
        for path in self.space:
            if lost := [other for other in before if other.startswith(f"{path}.")]:
                raise ValueError(f"{path} replaces {lost}, which stand before it in [set] or [space]")
            before.append(path)
        drawn = [path for path, dimension in self.space.items() if dimension.drawn]
        if self.objectives and (chance := [path for path in drawn if is_condition(path)]):
            raise ValueError(
                f"{chance} make the data easier or harder, and drawn values of them cannot be told from better settings: "
                "use `grid`, or set them in [set]"
            )
        if self.search == "optuna":
            if not self.objectives:
                raise ValueError("search = 'optuna' needs `objectives`: it learns from them")
            if len(drawn) < len(self.space):
                raise ValueError("search = 'optuna' draws every value: write `choice` instead of `grid`")
        elif self.samples > 1 and not drawn:
            raise ValueError("samples > 1 without a drawn field would run every trial twice: use `seeds`")
        if self.scheduler.name != "none" or self.scheduler.plateau is not None:
            if not self.objectives or self.objectives[0].metric not in ("dev_accuracy", "dev_loss"):
                raise ValueError("stopping trials early needs dev_accuracy or dev_loss as first objective")
            if harder := [path for path in self.space if is_condition(path)]:
                raise ValueError(
                    f"stopping trials early compares them with each other, and {harder} make the data easier or harder: the "
                    "hard ones would be stopped; sweep them without scheduler and plateau"
                )
            if self.search == "optuna" and len(self.seeds) > 1:
                raise ValueError(
                    "with optuna a trial is a point under all its seeds, one after another, and cannot be stopped by "
                    "epochs: use one seed, or no scheduler"
                )
        return self


def is_condition(path: str) -> bool:
    """Whether a swept field makes the data easier or harder, and is nothing to choose: a noise rate, say. What labels are
    called in prompts is a choice.

    >>> is_condition("dataset.noise.rate"), is_condition("dataset.words"), is_condition("method.lambda_")
    (True, False, False)
    """
    section, _, key = path.partition(".")
    return section == "dataset" and key.partition(".")[0] not in ("words", "definitions")


def _flat(space: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """`method.lambda_ = {...}` without quotes is a table in a table to TOML; here it is the same path."""
    found: list[tuple[str, Any]] = []
    for key, value in space.items():
        if isinstance(value, dict) and value and not set(value) & set(Dimension.model_fields):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _can_hold(path: str, other: str, wanted: Any, dimension: Dimension) -> None:
    """A condition on a value that never occurs would leave its field at the base value, without a word."""
    occurs = dimension.grid or dimension.choice
    values = wanted if isinstance(wanted, list | tuple) else [wanted]
    if occurs is not None and (never := [value for value in values if value not in occurs]):
        raise ValueError(f"{path}: `when` waits for {other} = {never}, which is swept over {list(occurs)}")


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """Tables in tables as paths, so that `train.labels = "given"` without quotes changes one key, not all of [train].

    Plug-ins by name stay whole, and so do tables whose keys are data (`dataset.words`) or that the config does not know.

    >>> settings({"train": {"labels": "given"}, "annotator": {"name": "knn"}, "dataset": {"words": {"a": "b"}}})
    {'train.labels': 'given', 'annotator': {'name': 'knn'}, 'dataset.words': {'a': 'b'}}

    Raises:
        ConfigError: a path stands there twice.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        for path, each in _leaves(key, value):
            if path in found:
                raise ConfigError(f"[set]: {path} stands there twice, as {found[path]!r} and as {each!r}")
            found[path] = each
    return found


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value or not _is_section(path.split("."), value):
        return [(path, value)]
    return [leaf for key, each in value.items() for leaf in _leaves(f"{path}.{key}", each)]


def _is_section(path: list[str], value: dict[str, Any]) -> bool:
    """Whether the keys of a table at a path of the config are options, one by one."""
    model: type[Options] = Config
    for part in path:
        if issubclass(model, Plugin):
            break
        field = model.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Options)]
        if not models:
            return False
        model = models[0]
    return not issubclass(model, Plugin) or ("name" not in value and not any("." in key for key in value))


def sweep_files(file: str, overrides: list[str] | tuple[str, ...] = ()) -> list[tuple[str, list[str]]]:
    """The sweep files of a command, each with its overrides: where every file on it is a sweep (what a shell makes of
    `configs/sweeps/*.toml`), all of them, each with the overrides that are no files; else the first one with all.

    Raises:
        ConfigError: a file cannot be read.
    """
    files = [file, *filter(is_file, overrides)]
    if len(files) > 1 and all("space" in read_values(each) for each in files):
        return [(each, [one for one in overrides if not is_file(one)]) for each in files]
    return [(file, list(overrides))]


def load_sweep(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Sweep:
    """Read a sweep file and apply overrides; `base` becomes a path from here.

    An override of the config that trials differ from, like `dataset.path=...` or a file with a [cluster] section, goes
    to [set].

    Raises:
        ConfigError: the file cannot be read, a key or a value is wrong, or an override is another sweep or its base.
    """
    path = Path(path)
    values = json.loads(json.dumps(read_values(path), default=str))
    for override in overrides:
        if is_file(override) and read_values(override).keys() & {"space", "base"}:
            raise ConfigError(
                f"{override} is a sweep file, and so is {path}: one sweep at a time, or files of sweeps alone (and overrides "
                "like detect.budget=0.05, which go to each)"
            )
        for where, value in assignments(override):
            if where[0] in Config.model_fields and where[0] not in Sweep.model_fields:
                values["set"] = settings(values.get("set", {})) | settings({".".join(where): value})
            else:
                set_path(values, where, value)
    if isinstance(base := values.get("base"), str) and not Path(base).is_absolute():
        values["base"] = str(path.parent / base)
    try:
        return Sweep(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, Sweep, str(path))) from None
