"""The plan of a sweep: the checked config of every trial, and the verbs that several trials share."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rayclean.annotators import ANNOTATORS, relabel_annotators
from rayclean.annotators.query_budget import common_currency
from rayclean.config import Config, parse_config
from rayclean.errors import ConfigError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.overrides import put_over, read_values
from rayclean.run import VERBS, Run
from rayclean.sweeps.dimension import show
from rayclean.sweeps.space import Point, drawn, only_valid, points
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.trial_run import TrialRecord, TrialRun
from rayclean.verb_fingerprints import config_identity, fingerprints

LABELS_ONLY = ("load", "predict", "detect", "relabel")
"""Verbs of a trial that trains no final model."""
CHEAP = ("detect", "relabel", "annotator", "dataset.words", "dataset.definitions")
"""Parts of the config that trials can vary while they reuse cached predictions."""
TRAINED = ("dev_accuracy", "dev_loss")
"""Objectives that require a trained model."""
QUIET = {"evaluate.compare": False, "evaluate.report": False}
"""Default settings of every trial, which [set] may override: no report and no comparison of networks."""


@dataclass(frozen=True)
class Work:
    """One trial, ready to run: a point and a seed."""

    point: Point
    config: Config
    fingerprints: dict[str, str]
    """Fingerprint of each verb."""
    root: str
    """Folder of the sweep."""

    @property
    def name(self) -> str:
        """Hash of everything that the result depends on, including data files; equal configs on equal data
        are the same trial in every sweep.
        """
        return self.config.name

    @property
    def seed(self) -> int:
        """The seed of the trial."""
        return self.config.seed

    @property
    def overrides(self) -> Point:
        """The values of the trial that override the base config."""
        return {**self.point, "seed": self.seed}

    @property
    def title(self) -> str:
        """A readable name, such as `method.lambda_=0.7 seed=1`."""
        return " ".join(f"{path}={show(value)}" for path, value in self.overrides.items())

    @property
    def run(self) -> TrialRun:
        """The trial's view of the sweep's folder."""
        asked = relabel_annotators(self.config)
        pays = any(ANNOTATORS.resolve(plugin.name).billable for plugin in asked)
        return TrialRun(self.root, self.name, self.fingerprints, pays=pays)

    def done(self, verb: str) -> bool:
        """Whether a verb was finished by this or another trial."""
        return self.run.done(verb, self.fingerprints[verb])


SharedLevel = list[tuple[str, Work]]
"""The distinct fingerprints of a verb, each with one representative trial."""


@dataclass(frozen=True)
class SharedWork:
    """The verbs of some trials, several of which may have the same fingerprint."""

    verbs: tuple[str, ...]
    """Verbs that a trial runs."""
    work: dict[str, Work]
    """Name of the trial -> its work."""
    sharers: int = 2
    """Least number of trials with the same verb for which it is shared and run before them."""

    def levels(self) -> list[SharedLevel]:
        """Unfinished shared verbs in order, each fingerprint once with a representative trial.

        `load` is included even for a single trial, since the number of questions depends on it.
        """
        levels = []
        for verb in self.verbs:
            counts, enough = self._counts(verb), 1 if verb == "load" else self.sharers
            first = {work.fingerprints[verb]: work for work in reversed(self.work.values())}
            shared = [first[digest] for digest in counts if counts[digest] >= enough]
            levels.append([(verb, work) for work in shared if not work.done(verb)])
        return [level for level in levels if level]

    def leaves(self, verb: str) -> bool:
        """Whether some trial has to run a verb that is neither finished nor shared."""
        counts = self._counts(verb)
        return verb not in self.verbs or any(
            counts[work.fingerprints[verb]] < self.sharers and not work.done(verb)
            for work in self.work.values()
        )

    def executions(self) -> dict[str, int]:
        """Number of distinct executions of each verb that the trials need."""
        return {verb: len(self._counts(verb)) for verb in self.verbs}

    def _counts(self, verb: str) -> Counter[str]:
        return Counter(work.fingerprints[verb] for work in self.work.values())


@dataclass(frozen=True)
class SweepPlan:
    """A sweep with all trials known before it starts; with Optuna there are none."""

    spec: Sweep
    values: dict[str, Any]
    """The base config with [set] over it, still unchecked."""
    work: dict[str, Work] = field(default_factory=dict)
    """Name of the trial -> its work."""

    @property
    def folder(self) -> Folder:
        """Folder of the sweep's artifacts."""
        return Folder(sweep_root(self.spec))

    @property
    def verbs(self) -> tuple[str, ...]:
        """Verbs that a trial runs."""
        return VERBS if needs_training(self.spec) else LABELS_ONLY

    def work_at(self, point: Point, seed: int) -> Work:
        """The trial of a point and a seed, with its config checked.

        Raises:
            ConfigError: a value of the space is invalid; the message names the trial.
        """
        named = ", ".join(f"{path} = {value!r}" for path, value in point.items()) or "its only point"
        where, root = f"{self.spec.name} at {named}", self.folder.url()
        config = parse_config(put_over(self.values, {**point, "seed": seed}), where=where)
        try:
            digests = fingerprints(config, Run(root))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        # A fingerprint depends on all earlier verbs and on the data files.
        last = "train" if needs_training(self.spec) else "relabel"
        name = fingerprint(last, digests[last], config_identity(config), config.seed)
        config = config.model_copy(update={"name": name, "output": f"{root}/trials"})
        return Work(dict(point), config, digests, root)

    def works_of(self, record: TrialRecord) -> list[Work]:
        """The trials that a trial of Ray Tune stands for: one trial of this plan, given by its name, or a
        point drawn by Optuna, under every seed.
        """
        if "name" in record:
            return [self.work[record["name"]]]
        return [self.work_at(drawn(self.spec, record), seed) for seed in self.spec.seeds]

    def sample(self) -> Work:
        """A trial with which the config is checked."""
        return self.work_at(any_point(self.spec), self.spec.seeds[0])

    def likely(self, count: int) -> SharedWork:
        """Random trials that predict which verbs the trials drawn by Optuna will share. If all agree by
        chance, a verb runs once too often, and results stay correct.
        """
        found: dict[str, Work] = {}
        for point in points(self.spec.model_copy(update={"search": "random", "samples": count})):
            with suppress(ConfigError):  # a point with an invalid combination of values fails as a trial
                works = [self.work_at(point, seed) for seed in self.spec.seeds]
                found |= {work.name: work for work in works}
        return SharedWork(self.verbs, found, sharers=len(found) // len(self.spec.seeds))


def sweep_root(sweep: Sweep) -> str:
    """Folder of a sweep's artifacts."""
    return Run(f"{sweep.output.rstrip('/')}/{sweep.name}").url()


def base_values(sweep: Sweep) -> dict[str, Any]:
    """The base config with [set] over it, still unchecked."""
    values = json.loads(json.dumps(read_values(sweep.base), default=str))
    return put_over(values, {**QUIET, **sweep.set})


def cost_currency(values: Mapping[str, Any], points: Iterable[Point]) -> str | None:
    """The currency of the costs of some points; several, joined by "or", where an earlier version allowed them.

    Args:
        values: the base config.
        points: invalid ones count for nothing.
    """
    found: set[str | None] = set()
    for point in points:
        with suppress(ConfigError):
            found.add(common_currency(parse_config(put_over(values, point))))
    return " or ".join(sorted(each for each in found if each)) or None


def any_point(sweep: Sweep) -> Point:
    """A point with the first value of every field, to check a config."""
    first = {path: (each.listed or each.bounds or ())[0] for path, each in sweep.space.items()}
    return only_valid(sweep, first)


def needs_training(sweep: Sweep) -> bool:
    """Whether trials train a final model.

    Raises:
        ConfigError: `trains` is false although an objective needs a trained model.
    """
    needs = any(objective.metric in TRAINED for objective in sweep.objectives)
    if sweep.trains is False and needs:
        raise ConfigError(
            f"trains = false, but {', '.join(TRAINED)} are figures of a trained model: choose other "
            "objectives"
        )
    cheap = all(any(path == c or path.startswith(f"{c}.") for c in CHEAP) for path in sweep.space)
    return needs or not cheap if sweep.trains is None else sweep.trains


def make_plan(sweep: Sweep) -> SweepPlan:
    """Plan every trial of the sweep, ordered by point and then by seed.

    Raises:
        ConfigError: a trial's config is invalid, or a swept field changes no result.
    """
    needs_training(sweep)
    plan = SweepPlan(sweep, base_values(sweep))
    for point in points(sweep) if sweep.search == "random" else ():
        for work in (plan.work_at(point, seed) for seed in sweep.seeds):
            first = plan.work.setdefault(work.name, work)
            if first.config != work.config:
                one, other = first.point, work.point
                differing = ", ".join(path for path in sweep.space if one.get(path) != other.get(path))
                raise ConfigError(
                    f"{sweep.name}: {differing} changes no result, only how the work is done; set it for all "
                    "trials in [set]"
                )
    currencies = {common_currency(work.config) for work in plan.work.values()} - {None}
    if len(currencies) > 1:
        raise ConfigError(
            f"{sweep.name}: the prices of its trials are in {' and '.join(sorted(map(str, currencies)))}, and costs are "
            "compared: write all prices and max_cost in one currency"
        )
    return plan
