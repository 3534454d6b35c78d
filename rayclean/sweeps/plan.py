"""Before a sweep starts: every trial's config, checked; what trials share; how many fit at once; what it will cost."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rayclean.config import Config, parse_config
from rayclean.errors import ConfigError
from rayclean.fingerprints import fingerprint
from rayclean.overrides import read_values, set_path
from rayclean.run import VERBS, Run
from rayclean.sweeps.space import Point, Trial, only_valid, points
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.trial_run import FREE, TrialRun
from rayclean.verb_fingerprints import check_plugins, fingerprints

LABELS_ONLY = ("load", "predict", "detect", "relabel")
"""Verbs of a trial that trains nothing at the end."""
CHEAP = ("detect", "relabel", "annotator", "dataset.words", "dataset.definitions")
"""Parts of the config whose trials re-run from cached predictions."""
TRAINED = ("dev_accuracy", "dev_loss")
"""Objectives that only a trained model has."""
DRAWS = 16
"""Points that tell which verbs hang on the fields that Optuna draws."""
QUIET = {"evaluate.compare": False, "evaluate.report": False}
"""A trial is measured, but has no page of its own and no other networks beside it, unless [set] says so."""


@dataclass(frozen=True)
class Work:
    """One trial, ready to run."""

    trial: Trial
    config: Config
    prints: dict[str, str]
    """Fingerprint by verb."""

    def run(self, root: str) -> TrialRun:
        """Its folder in the sweep at `root`."""
        pays = self.config.annotator.name not in FREE
        return TrialRun(root, self.trial.name, self.prints, pays=pays)


Level = list[tuple[str, Work]]
"""A verb with its different fingerprints, each with a trial that stands for it."""


@dataclass(frozen=True)
class SweepPlan:
    """All trials that can be named before the sweep starts; with Optuna there are none yet."""

    verbs: tuple[str, ...]
    """That a trial runs."""
    work: dict[str, Work]
    """By name of the trial."""
    sharers: int = 2
    """So many trials with the same verb share it."""

    def shared(self, root: str) -> list[Level]:
        """Verbs of several trials that are not finished, each once with a trial that stands for them; verb by verb.

        `load` is among them also where a trial is alone with it: only then is it known how much there is to ask.
        """
        levels = []
        for verb in self.verbs:
            counts = Counter(work.prints[verb] for work in self.work.values())
            enough = 1 if verb == "load" else self.sharers
            level = {}
            for work in self.work.values():
                mark = work.prints[verb]
                if counts[mark] >= enough and mark not in level and not work.run(root).done(verb, mark):
                    level[mark] = (verb, work)
            if level:
                levels.append(list(level.values()))
        return levels

    def leaves(self, verb: str, root: str) -> bool:
        """Whether a trial runs a verb by itself, which neither is finished nor shared."""
        counts = Counter(work.prints[verb] for work in self.work.values())
        return verb not in self.verbs or any(
            counts[mark] < self.sharers and not work.run(root).done(verb, mark)
            for work in self.work.values()
            if (mark := work.prints[verb])
        )

    def own(self) -> dict[str, int]:
        """How many different executions of each verb the sweep needs."""
        return {verb: len({work.prints[verb] for work in self.work.values()}) for verb in self.verbs}


def sweep_root(sweep: Sweep) -> str:
    """Folder of a sweep's artifacts."""
    return Run(f"{sweep.output.rstrip('/')}/{sweep.name}").url()


def base_values(sweep: Sweep) -> dict[str, Any]:
    """The base config with [set] over it, still unchecked."""
    values = json.loads(json.dumps(read_values(sweep.base), default=str))
    return put_over(values, {**QUIET, **sweep.set})


def put_over(values: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config's values with those of a point."""
    own, over = json.loads(
        json.dumps([dict(values), dict(point)])
    )  # a table of the point may get further values, too
    for path, value in over.items():
        set_path(own, tuple(path.split(".")), value)  # says what is wrong where a path leads through a value
    return dict(own)


def any_point(sweep: Sweep) -> Point:
    """The first value of everything, to check a config by."""
    first = {
        path: next(iter(each.grid or each.choice or each.uniform or each.log_uniform or each.integer or ()))
        for path, each in sweep.space.items()
    }
    return only_valid(sweep, first)


def needs_training(sweep: Sweep) -> bool:
    """Whether trials train a model at the end.

    Raises:
        ConfigError: the file says no where an objective needs one.
    """
    needs = any(objective.metric in TRAINED for objective in sweep.objectives)
    if sweep.trains is False and needs:
        raise ConfigError(
            f"trains = false, but {', '.join(TRAINED)} are figures of a trained model: choose other objectives"
        )
    cheap = all(any(path == c or path.startswith(f"{c}.") for c in CHEAP) for path in sweep.space)
    return needs or not cheap if sweep.trains is None else sweep.trains


def work_of(sweep: Sweep, values: Mapping[str, Any], point: Point, seed: int) -> Work:
    """The trial of a point under a seed, its config checked.

    Raises:
        ConfigError: a value of the space cannot be; the message names the trial.
    """
    own = put_over(values, {**point, "seed": seed})
    where = f"{sweep.name} at " + (
        ", ".join(f"{path} = {value!r}" for path, value in point.items()) or "its only point"
    )
    config = parse_config(own, where=where)
    try:
        prints = fingerprints(config, Run(sweep_root(sweep)))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    last = (
        "train" if needs_training(sweep) else "relabel"
    )  # it hangs on everything before it, the data files' stamps included
    mark = fingerprint(last, prints[last], sweep_identity(config), config.seed)
    config = config.model_copy(update={"name": mark, "output": f"{sweep_root(sweep)}/trials"})
    return Work(Trial(dict(point), seed, mark), config, prints)


def sweep_identity(config: Config) -> dict[str, Any]:
    """What of a config bears on results, but for its seed: equal for configs that give the same ones, however they are
    written (`0` and `0.0`, a default that is named) and wherever and however fast they run.

    Raises:
        ConfigError: a plug-in or an option is wrong.
    """
    sections = ("dataset", "predict", "detect", "relabel", "train")
    said = {section: getattr(config, section).identity() for section in sections}
    del said["detect"]["detectors"]  # they are plug-ins
    return said | check_plugins(config)


def make_plan(sweep: Sweep) -> SweepPlan:
    """Every trial of the sweep, by seeds within points.

    Raises:
        ConfigError: any of them cannot work, or a swept field changes no result.
    """
    values = base_values(sweep)
    verbs = VERBS if needs_training(sweep) else LABELS_ONLY
    if sweep.search == "optuna":
        return SweepPlan(verbs, {})
    work = [work_of(sweep, values, point, seed) for point in points(sweep) for seed in sweep.seeds]
    named: dict[str, Work] = {}
    for each in work:
        first = named.setdefault(each.trial.name, each)
        if first.config != each.config:
            one, other = first.trial.point, each.trial.point
            apart = [path for path in sweep.space if one.get(path) != other.get(path)]
            raise ConfigError(
                f"{sweep.name}: {', '.join(apart)} changes no result, only how the work is done; set it for all trials in [set]"
            )
    return SweepPlan(verbs, named)


def shared_work(sweep: Sweep, plan: SweepPlan, todo: Mapping[str, Work]) -> SweepPlan:
    """Of the trials without a result, the plan of what is run before them.

    Optuna names none: whatever it draws, its trials share the verbs that hang on no swept field, once for each seed.
    """
    if sweep.search != "optuna":
        return SweepPlan(plan.verbs, dict(todo))
    values, first = base_values(sweep), any_point(sweep)
    work = [work_of(sweep, values, first, seed) for seed in sweep.seeds]
    # Some draws tell; should they agree on a verb by chance, it is run once too often, and every result is right.
    draws = _at_random(sweep, DRAWS)
    others = [work_of(sweep, values, point, sweep.seeds[0]).prints for point in draws]
    verbs = tuple(v for v in plan.verbs if all(prints[v] == work[0].prints[v] for prints in others))
    return SweepPlan(verbs, {each.trial.name: each for each in work}, sharers=1)


def likely(sweep: Sweep, verbs: tuple[str, ...], count: int) -> SweepPlan:
    """Trials like those of so many points that Optuna has not drawn yet, to count by."""
    values, work = base_values(sweep), dict[str, Work]()
    for point in _at_random(sweep, count):
        with suppress(ConfigError):  # where values do not fit together, a trial of Optuna's fails by itself
            for seed in sweep.seeds:
                one = work_of(sweep, values, point, seed)
                work[one.trial.name] = one
    return SweepPlan(verbs, work)


def _at_random(sweep: Sweep, count: int) -> list[Point]:
    return points(sweep.model_copy(update={"search": "random", "samples": count}))
