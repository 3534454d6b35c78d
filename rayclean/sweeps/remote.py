"""Functions that run in the cluster's workers: the verbs that trials share, and the trials themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rayclean import pipeline
from rayclean.errors import RaycleanError
from rayclean.sweeps.plan import Work, work_of
from rayclean.sweeps.space import drawn
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.trial import run_trial
from rayclean.sweeps.trial_run import TrialRecord

if TYPE_CHECKING:
    from rayclean.runtime.engines import Workplace

ERROR = "error.json"
"""File of a trial that failed, with its title and its error."""


@dataclass(frozen=True)
class SweepContext:
    """The values that all trials of a sweep have in common."""

    url: str
    """Folder of the sweep."""
    verbs: tuple[str, ...]
    """Verbs that a trial runs."""
    servers: Any
    """Language models that run for all trials (`runtime.serve.hosting`)."""


def run_shared_work(item: tuple[str, Work], place: "Workplace", context: SweepContext) -> None:
    """Run one verb that several trials share, as one of them."""
    verb, work = item
    place = replace(place, endpoints=context.servers)
    pipeline.run_verbs(work.config, (verb,), run=work.run(context.url), place=place)


def run_named_trial(
    record: TrialRecord,
    on_epoch: Callable[[TrialRecord], None],
    place: "Workplace",
    work: Mapping[str, Work],
    context: SweepContext,
) -> TrialRecord:
    """Run a trial of the plan: `record` has its name."""
    return _run_guarded(work[record["name"]], context, place, on_epoch)


def run_suggested_trial(
    record: TrialRecord,
    on_epoch: Callable[[TrialRecord], None],
    place: "Workplace",
    spec: Sweep,
    values: TrialRecord,
    context: SweepContext,
) -> TrialRecord:
    """Run a point that Optuna drew under every seed; its figures are the means over them."""
    point, results = drawn(spec, record), []
    for seed in spec.seeds:
        work = work_of(spec, values, point, seed)
        result = _run_guarded(work, context, place, on_epoch if len(spec.seeds) == 1 else lambda _: None)
        if "error" in result:
            return result
        results.append(result)
    names = set.intersection(*(set(result["figures"]) for result in results))
    means = {name: sum(result["figures"][name] for result in results) / len(results) for name in names}
    return {"figures": means, "point": point, "trials": results}


def _run_guarded(
    work: Work, context: SweepContext, place: "Workplace", on_epoch: Callable[[TrialRecord], None]
) -> TrialRecord:
    """Run a trial; its own error ends it and no other trial."""
    run = work.run(context.url)
    try:
        place = replace(place, endpoints=context.servers)
        result = run_trial(work, context.url, context.verbs, on_epoch, place)
    except RaycleanError as error:
        run.write_json({"title": work.trial.title, "error": str(error)}, ERROR)
        return {"trial": work.trial.name, "error": str(error), "figures": {}}
    run.remove(ERROR)
    return result
