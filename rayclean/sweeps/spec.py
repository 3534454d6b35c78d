"""The models of a sweep file: base config, swept fields, seeds, objectives, and execution of trials.

    name = "lambda"
    base = "../trec6/noiseal.toml"
    seeds = [0, 1, 2]

    [set]                                  # the same in every trial
    "train.labels" = "given"

    [space]                                # any config path, in quotes
    "method.lambda_" = { grid = [0.1, 0.3, 0.5, 0.7, 0.9] }
    "dataset.noise.rate" = { grid = [0.2, 0.4] }

A trial is one point of the space under one seed. Its name is a hash of its config, so a resumed or extended
sweep finds its finished trials.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rayclean.config import Config
from rayclean.overrides import leaves
from rayclean.plugins import Options, did_you_mean
from rayclean.sweeps.dimension import Dimension, as_list, is_condition

OBJECTIVES: dict[str, Literal["max", "min"]] = {
    "dev_accuracy": "max",
    "dev_loss": "min",
    "asked": "min",
    "changed": "min",
    "tokens": "min",
    "cost": "min",
    "seconds": "min",
}
"""Metrics that may select trials, and their direction; none is measured on the test set or on the truth."""


class Objective(Options):
    """A metric by which trials are selected."""

    metric: str
    """One of `OBJECTIVES`: measured on the given labels of the development examples (agreement with their noise, unless
    `dataset.dev.clean` declares them clean), or a cost."""
    mode: Literal["max", "min"]
    """Whether higher or lower is better; the default is that of `OBJECTIVES`."""

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.mode == "max" else -1

    @model_validator(mode="before")
    @classmethod
    def _name_is_enough(cls, value: Any) -> Any:
        value = {"metric": value} if isinstance(value, str) else value
        metric = value.get("metric") if isinstance(value, dict) else None
        if not isinstance(metric, str):
            return value
        if metric not in OBJECTIVES:
            raise ValueError(
                f"{metric!r} cannot decide between trials (figures of the test set or of the truth are shown, "
                f"never chosen by): {did_you_mean(metric, list(OBJECTIVES))}"
            )
        return {"mode": OBJECTIVES[metric], **value}


class Scheduler(Options):
    """Early stopping of trials by the first objective, after every epoch but the last. A resumed sweep
    compares only the trials of its new attempt, so it may stop others than an uninterrupted sweep.
    """

    name: Literal["none", "asha", "median"] = "none"
    """`asha`: successive halving (Li et al., 2018); `median`: stops trials below the median of the others."""
    grace: int = Field(1, ge=1)
    """Least number of epochs of every trial."""
    reduction: int = Field(3, ge=2)
    """`asha` only: one in this many trials continues."""
    plateau: int | None = Field(None, ge=2)
    """Number of epochs within 0.001 of each other after which a trial is stopped as converged. It can be
    selected as best, by the figures of its last epoch, but is not tested against the reference, whose figures
    are those of its best epoch, and lacks the figures measured after training."""

    @property
    def stops(self) -> bool:
        """Whether any trial may be stopped early."""
        return self.name != "none" or self.plateau is not None


class Trials(Options):
    """Execution of trials; no result depends on it."""

    concurrent: int | None = Field(None, ge=1)
    """Number of concurrent trials; `None`: as many as fit."""
    cpus: float = Field(0.1, gt=0)
    """CPUs that a trial holds in addition to its training workers, for which it mostly waits."""
    seconds: float | None = Field(None, gt=0)
    """Seconds after which no trial is started or run; the same command resumes the sweep. The clock starts
    with the first trial: shared verbs and the start of a language model are not limited."""
    retries: int = Field(1, ge=0)
    """Number of restarts of a trial whose process or node was lost."""


class Tracking(Options):
    """Logging of trials; no result depends on it."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Mode of W&B; `auto`: WANDB_MODE if it is set, else `online` with WANDB_API_KEY, `offline` without (for
    `wandb sync`), `off` if wandb is not installed. Offline runs need a sweep folder on a disk."""
    project: str = "rayclean"
    """Project on W&B."""
    changes: int = Field(0, ge=0)
    """Number of changed labels of every trial that are logged to W&B with their texts; 0: none."""


class Sweep(Options):
    """The content of a sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the sweep: its artifacts are in `<output>/<name>/`, its runs on W&B in a group of this name."""
    output: str = "sweeps"
    """Folder of all sweeps, on any file system that fsspec knows."""
    base: str
    """Path of the base config that trials modify, relative to the sweep file."""
    base_shown: str | None = None
    """Path of the base config in the report and its commands, if it differs (in a submitted sweep); `None`: `base`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides for all trials, by quoted config path. A table replaces the whole value, such as a plug-in
    with its options (`"method" = { name = "lane" }`) or a table of words."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """The part of `set` from the command line; not allowed in a file."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Values of the swept fields, by quoted config path."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Seeds under each of which every point is run."""
    samples: int = Field(1, ge=1)
    """Number of draws for each point of the grids; with `search = "optuna"` the total number of points."""
    search: Literal["random", "optuna"] = "random"
    """Source of drawn values; `optuna`: by the objectives of earlier points (TPE, Bergstra et al., 2011)."""
    draw_seed: int = 0
    """Seed of the random draws."""
    objectives: tuple[Objective, ...] = ()
    """Metrics by which points are selected; several give a Pareto front. Empty: no selection."""
    trains: bool | None = None
    """Whether trials train a final model; `None`: if a swept field or an objective concerns training."""
    scheduler: Scheduler = Scheduler()
    trials: Trials = Trials()
    tracking: Tracking = Tracking()

    OPERATIONAL: ClassVar[tuple[str, ...]] = ("trials", "tracking", "output", "base_shown")

    @field_validator("space", mode="before")
    @classmethod
    def _paths_of_space(cls, space: Any) -> Any:
        for path, value in space.items() if isinstance(space, dict) else ():
            if not isinstance(value, dict | Dimension):
                raise ValueError(f"{path}: expected a table like {{ grid = [...] }}, got {value!r}")
            *parts, last = next(leaves({path: value}, ()))[0]
            if len(parts) > 1 and last in Dimension.model_fields:
                raise ValueError(
                    f'write paths in quotes: "{".".join(parts)}" = {{ ... }}, got it without them'
                )
        return space

    @field_validator("set", mode="before")
    @classmethod
    def _paths_of_set(cls, values: Any) -> Any:
        for path, value in values.items() if isinstance(values, dict) else ():
            # A section given as a table would lose the base's other keys; a plug-in with its name is replaced
            # as a whole.
            if path in Config.model_fields and isinstance(value, dict) and value and "name" not in value:
                keys, leaf = next(leaves({path: value}, ()))
                raise ValueError(f'write paths in quotes: "{".".join(keys)}" = {leaf!r}, got it without them')
        return values

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
        before = list(self.set)
        for path, dimension in self.space.items():
            if path.split(".")[0] in ("name", "output", "cluster", "evaluate"):
                raise ValueError(f"{path} changes no result; set it for all trials in [set]")
            if path in self.set:
                raise ValueError(f"{path} stands both in [set] and in [space]")
            if lost := [other for other in before if other.startswith(f"{path}.")]:
                raise ValueError(f"{path} replaces {lost}, which stand before it in [set] or [space]")
            before.append(path)
            if unknown := [other for other in dimension.when if other not in self.space or other == path]:
                raise ValueError(f"{path}: `when` names {unknown}, which are no other swept fields")
            for other, wanted in dimension.when.items():
                # A condition on a value that never occurs would silently keep the base value.
                listed = list(self.space[other].listed)
                if listed and (never := [value for value in as_list(wanted) if value not in listed]):
                    raise ValueError(
                        f"{path}: `when` waits for {other} = {never}, which is swept over {listed}"
                    )
        self._check_search()
        if self.scheduler.stops:
            self._check_scheduler()
        return self

    def _check_search(self) -> None:
        drawn = [path for path, dimension in self.space.items() if dimension.drawn]
        if self.objectives and (chance := [path for path in drawn if is_condition(path)]):
            raise ValueError(
                f"{chance} make the data easier or harder, and drawn values of them cannot be told from "
                "better settings: use `grid`, or set them in [set]"
            )
        if self.search == "optuna" and not self.objectives:
            raise ValueError("search = 'optuna' needs `objectives`: it learns from them")
        if self.search == "optuna" and len(drawn) < len(self.space):
            raise ValueError("search = 'optuna' draws every value: write `choice` instead of `grid`")
        if self.samples > 1 and not drawn:
            raise ValueError("samples > 1 without a drawn field would run every trial twice: use `seeds`")

    def _check_scheduler(self) -> None:
        if not self.objectives or self.objectives[0].metric not in ("dev_accuracy", "dev_loss"):
            raise ValueError("stopping trials early needs dev_accuracy or dev_loss as first objective")
        if harder := [path for path in self.space if is_condition(path)]:
            raise ValueError(
                f"stopping trials early compares them with each other, and {harder} make the data easier or "
                "harder: the hard ones would be stopped; sweep them without scheduler and plateau"
            )
        if self.search == "optuna" and len(self.seeds) > 1:
            raise ValueError(
                "with optuna a trial is a point under all its seeds, one after another, and cannot be "
                "stopped by epochs: use one seed, or no scheduler"
            )
