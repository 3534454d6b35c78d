"""What runs in the cluster's workers: what trials share, and the trials themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rayclean import pipeline
from rayclean.errors import RaycleanError
from rayclean.sweeps.plan import Work, work_of
from rayclean.sweeps.space import drawn
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.trial import run_trial

if TYPE_CHECKING:
    from rayclean.runtime.engines import Workplace

ERROR = "error.json"

Record = dict[str, Any]
Tell = Callable[[Record], None]


@dataclass(frozen=True)
class SweepContext:
    """What all trials of a sweep have in common."""

    url: str
    """Folder of the sweep."""
    verbs: tuple[str, ...]
    """That a trial runs."""
    servers: Any
    """Language models that run for all of them (`runtime.serve.hosting`)."""


def run_shared_work(item: tuple[str, Work], workplace: "Workplace", place: SweepContext) -> None:
    """One verb that several trials share, by one of them."""
    verb, work = item
    workplace = replace(workplace, endpoints=place.servers)
    pipeline.run_verbs(work.config, (verb,), run=work.run(place.url), place=workplace)


def run_named_trial(
    record: Record, tell: Tell, workplace: "Workplace", work: Mapping[str, Work], place: SweepContext
) -> Record:
    """A trial known beforehand: `record` has its name."""
    return _guarded(work[record["name"]], place, workplace, tell)


def run_suggested_trial(
    record: Record, tell: Tell, workplace: "Workplace", spec: Sweep, values: Record, place: SweepContext
) -> Record:
    """A point that Optuna drew, under every seed; its figures are their means."""
    point, results = drawn(spec, record), []
    heard = tell if len(spec.seeds) == 1 else _nobody
    for seed in spec.seeds:
        result = _guarded(work_of(spec, values, point, seed), place, workplace, heard)
        if "error" in result:
            return result
        results.append(result)
    names = set.intersection(*(set(result["figures"]) for result in results))
    means = {name: sum(result["figures"][name] for result in results) / len(results) for name in names}
    return {"figures": means, "point": point, "trials": results}


def _guarded(work: Work, place: SweepContext, workplace: "Workplace", tell: Tell) -> Record:
    """A trial whose own error ends it alone."""
    run = work.run(place.url)
    try:
        workplace = replace(workplace, endpoints=place.servers)
        result = run_trial(work, place.url, place.verbs, tell, workplace)
    except RaycleanError as error:
        run.write_json({"title": work.trial.title, "error": str(error)}, ERROR)
        return {"trial": work.trial.name, "error": str(error), "figures": {}}
    run.remove(ERROR)
    return result


def _nobody(record: Record) -> None:
    """A line that nobody waits for."""
