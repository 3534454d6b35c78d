"""The models of a sweep file: a base config, fields and the values they take, seeds, objectives, how trials
are run.

    name = "lambda"
    base = "../trec6/noiseal.toml"
    seeds = [0, 1, 2]

    [set]                                  # the same in every trial
    "train.labels" = "given"

    [space]                                # any path of the config, in quotes
    "method.lambda_" = { grid = [0.1, 0.3, 0.5, 0.7, 0.9] }
    "dataset.noise.rate" = { grid = [0.2, 0.4] }

A trial is one point of the space under one seed. Its name is a hash of its config, so a sweep that was
killed, or one that grew, finds the trials that are finished.
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
"""Metrics that may decide between trials, and which way is better: none is measured on the test set or on the
truth."""


class Objective(Options):
    """A metric that decides between trials."""

    metric: str
    """One of `OBJECTIVES`: measured on development examples (their given labels, or declared clean), or a
    cost."""
    mode: Literal["max", "min"]
    """Whether higher or lower is better; by default as `OBJECTIVES` says."""

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
    """Stops trials that train early, by the first objective after every epoch but the last. A sweep that was
    interrupted compares with the trials of its new attempt alone: it may stop others than a sweep that ran
    through.
    """

    name: Literal["none", "asha", "median"] = "none"
    """`asha`: successive halving (Li et al., 2018); `median`: worse than the median of the others so far."""
    grace: int = Field(1, ge=1)
    """Epochs that every trial may run."""
    reduction: int = Field(3, ge=2)
    """`asha` only: one of so many trials goes on."""
    plateau: int | None = Field(None, ge=2)
    """Stop a trial whose objective has not moved by .001 for so many epochs. It counts as converged: it may
    be chosen as best, by the figures of its last epoch; it is not tested against the reference, whose figures
    are of a best epoch, and has none of the figures that are measured after training."""

    @property
    def stops(self) -> bool:
        """Whether any trial may be stopped early."""
        return self.name != "none" or self.plateau is not None


class Trials(Options):
    """How trials are run; changes no result."""

    concurrent: int | None = Field(None, ge=1)
    """Trials that run at once; `None`: as many as fit."""
    cpus: float = Field(0.1, gt=0)
    """CPUs that a trial itself holds, beside its training workers: a trial that trains mostly waits."""
    seconds: float | None = Field(None, gt=0)
    """Stop starting and running trials after so long; the same command goes on. The clock starts with the
    first trial: what trials share, which runs before, and the start of a language model always run to their
    end."""
    retries: int = Field(1, ge=0)
    """How often a trial whose process or node was lost begins again."""


class Tracking(Options):
    """Where trials are logged while they run; changes no result."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """`auto`: what WANDB_MODE says, if it is set; else online with WANDB_API_KEY, offline without (`wandb
    sync` later), off where wandb is not installed. Offline runs need a sweep folder on a disk."""
    project: str = "rayclean"
    """Project on W&B."""
    changes: int = Field(0, ge=0)
    """So many changed labels of every trial go to W&B as a table, with their texts; 0: none leave the run."""


class Sweep(Options):
    """A whole sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its artifacts go to `<output>/<name>/`, its runs on W&B into a group of this name."""
    output: str = "sweeps"
    """Folder of all sweeps, on any file system that fsspec knows."""
    base: str
    """Config that trials differ from; relative to the sweep file."""
    base_shown: str | None = None
    """Path of the base in the report and its commands, where it lies under another name than here (a
    submitted sweep); `None`: `base`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides that hold in every trial: quoted path -> value. A table replaces what it names as a whole: a
    plug-in with its options (`"method" = { name = "lane" }`), a table of words."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """The part of `set` that the command line gave; not for a file."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Quoted path of the config -> its values."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Every point is run under every one of these seeds."""
    samples: int = Field(1, ge=1)
    """Draws for each point of the grids; with `search = "optuna"` the number of points in all."""
    search: Literal["random", "optuna"] = "random"
    """How drawn values are chosen. `optuna`: by the objectives of the points before (TPE, Bergstra et al.,
    2011)."""
    draw_seed: int = 0
    """Seed of the draws themselves."""
    objectives: tuple[Objective, ...] = ()
    """Metrics that decide; several give a Pareto front. Empty: nothing is chosen."""
    trains: bool | None = None
    """Whether trials train a model at the end; `None`: if a swept field or an objective has to do with
    training."""
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
            # A section as a table would lose the base's other keys of it; a plug-in with its name is meant as
            # a whole.
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
