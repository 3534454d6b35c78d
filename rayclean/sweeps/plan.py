"""The plan of a sweep: every trial's config, checked, and the verbs that several trials share."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rayclean.annotators import ANNOTATORS, relabel_annotators
from rayclean.config import Config, parse_config
from rayclean.errors import ConfigError
from rayclean.fingerprints import fingerprint
from rayclean.overrides import read_values, set_path
from rayclean.run import VERBS, Run
from rayclean.sweeps.space import Point, Trial, only_valid, points
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.trial_run import TrialRun
from rayclean.verb_fingerprints import check_plugins, fingerprints

LABELS_ONLY = ("load", "predict", "detect", "relabel")
"""Verbs of a trial that does not train a model at the end."""
CHEAP = ("detect", "relabel", "annotator", "dataset.words", "dataset.definitions")
"""Parts of the config that trials can change while they reuse cached predictions."""
TRAINED = ("dev_accuracy", "dev_loss")
"""Objectives that only a trained model has."""
DRAWS = 16
"""Points drawn at random to find out which verbs depend on the fields that Optuna draws."""
QUIET = {"evaluate.compare": False, "evaluate.report": False}
"""Settings of every trial unless [set] says otherwise: it is measured, but writes no report and compares no
networks."""


@dataclass(frozen=True)
class Work:
    """One trial, ready to run."""

    trial: Trial
    config: Config
    fingerprints: dict[str, str]
    """Fingerprint by verb."""

    def run(self, root: str) -> TrialRun:
        """The trial's view of the sweep's folder at `root`."""
        asked = relabel_annotators(self.config)
        pays = any(ANNOTATORS.resolve(plugin.name).billable for plugin in asked)
        return TrialRun(root, self.trial.name, self.fingerprints, pays=pays)


SharedLevel = list[tuple[str, Work]]
"""A verb with its different fingerprints, each with a trial that stands for it."""


@dataclass(frozen=True)
class SweepPlan:
    """All trials that can be named before the sweep starts; with Optuna there are none yet."""

    verbs: tuple[str, ...]
    """Verbs that a trial runs."""
    work: dict[str, Work]
    """Name of the trial -> its work."""
    sharers: int = 2
    """A verb of at least so many trials runs before them."""

    def shared(self, root: str) -> list[SharedLevel]:
        """Unfinished verbs of several trials, each once with a trial that stands for them; verb by verb.

        `load` of a single trial is included: the loaded data tell how many questions there will be.
        """
        levels = []
        for verb in self.verbs:
            counts = Counter(work.fingerprints[verb] for work in self.work.values())
            enough = 1 if verb == "load" else self.sharers
            level = {}
            for work in self.work.values():
                digest = work.fingerprints[verb]
                if counts[digest] >= enough and digest not in level and not work.run(root).done(verb, digest):
                    level[digest] = (verb, work)
            if level:
                levels.append(list(level.values()))
        return levels

    def leaves(self, verb: str, root: str) -> bool:
        """Whether some trial has to run a verb itself, because it is neither finished nor shared."""
        counts = Counter(work.fingerprints[verb] for work in self.work.values())
        return verb not in self.verbs or any(
            counts[digest] < self.sharers and not work.run(root).done(verb, digest)
            for work in self.work.values()
            if (digest := work.fingerprints[verb])
        )

    def executions(self) -> dict[str, int]:
        """How many different executions of each verb the sweep needs."""
        return {verb: len({work.fingerprints[verb] for work in self.work.values()}) for verb in self.verbs}


def sweep_root(sweep: Sweep) -> str:
    """Folder of a sweep's artifacts."""
    return Run(f"{sweep.output.rstrip('/')}/{sweep.name}").url()


def base_values(sweep: Sweep) -> dict[str, Any]:
    """The base config with [set] over it, still unchecked."""
    values = json.loads(json.dumps(read_values(sweep.base), default=str))
    return put_over(values, {**QUIET, **sweep.set})


def put_over(values: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config's values with those of a point."""
    config, over = json.loads(json.dumps([dict(values), dict(point)]))  # a deep copy of both
    for path, value in over.items():
        set_path(config, tuple(path.split(".")), value)
    return dict(config)


def any_point(sweep: Sweep) -> Point:
    """The first value of everything, to check a config by."""
    first = {
        path: next(iter(each.listed or each.uniform or each.log_uniform or each.integer or ()))
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
            f"trains = false, but {', '.join(TRAINED)} are figures of a trained model: choose other "
            "objectives"
        )
    cheap = all(any(path == c or path.startswith(f"{c}.") for c in CHEAP) for path in sweep.space)
    return needs or not cheap if sweep.trains is None else sweep.trains


def work_of(sweep: Sweep, values: Mapping[str, Any], point: Point, seed: int) -> Work:
    """The trial of a point under a seed, its config checked.

    Raises:
        ConfigError: a value of the space cannot be; the message names the trial.
    """
    named = ", ".join(f"{path} = {value!r}" for path, value in point.items()) or "its only point"
    where = f"{sweep.name} at {named}"
    config = parse_config(put_over(values, {**point, "seed": seed}), where=where)
    try:
        digests = fingerprints(config, Run(sweep_root(sweep)))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    last = (
        "train" if needs_training(sweep) else "relabel"
    )  # depends on everything before it, data files included
    name = fingerprint(last, digests[last], sweep_identity(config), config.seed)
    config = config.model_copy(update={"name": name, "output": f"{sweep_root(sweep)}/trials"})
    return Work(Trial(dict(point), seed, name), config, digests)


def sweep_identity(config: Config) -> dict[str, Any]:
    """The part of a config on which results depend, without its seed: equal for configs that give the same
    results, however they are written (`0` and `0.0`, an explicit default) and wherever and however fast they
    run.

    Raises:
        ConfigError: a plug-in or an option is wrong.
    """
    sections = ("dataset", "predict", "detect", "relabel", "train")
    identity = {section: getattr(config, section).identity() for section in sections}
    del identity["detect"]["detectors"]  # they are plug-ins
    return identity | check_plugins(config)


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
            differing = ", ".join(path for path in sweep.space if one.get(path) != other.get(path))
            raise ConfigError(
                f"{sweep.name}: {differing} changes no result, only how the work is done; set it for all "
                "trials in [set]"
            )
    return SweepPlan(verbs, named)


def shared_work(sweep: Sweep, plan: SweepPlan, todo: Mapping[str, Work]) -> SweepPlan:
    """The plan of the verbs that run before the trials without a result.

    With Optuna no trial is known yet: whatever it draws, its trials share the verbs that depend on no swept
    field, once for each seed.
    """
    if sweep.search != "optuna":
        return SweepPlan(plan.verbs, dict(todo))
    values, first = base_values(sweep), any_point(sweep)
    work = [work_of(sweep, values, first, seed) for seed in sweep.seeds]
    # Should these draws agree on a verb by chance, it is run once too often, and every result is right.
    others = [work_of(sweep, values, point, sweep.seeds[0]) for point in _at_random(sweep, DRAWS)]
    verbs = tuple(
        verb
        for verb in plan.verbs
        if all(each.fingerprints[verb] == work[0].fingerprints[verb] for each in others)
    )
    return SweepPlan(verbs, {each.trial.name: each for each in work}, sharers=1)


def likely(sweep: Sweep, verbs: tuple[str, ...], count: int) -> SweepPlan:
    """A plan of random points, as many as Optuna has still to draw, to estimate counts by."""
    values, work = base_values(sweep), dict[str, Work]()
    for point in _at_random(sweep, count):
        with suppress(ConfigError):  # a point whose values do not fit together fails as a trial
            for seed in sweep.seeds:
                one = work_of(sweep, values, point, seed)
                work[one.trial.name] = one
    return SweepPlan(verbs, work)


def _at_random(sweep: Sweep, count: int) -> list[Point]:
    return points(sweep.model_copy(update={"search": "random", "samples": count}))
