"""Trials in workers of the cluster: execution of their verbs, and writing and reading of their results."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from rayclean import pipeline
from rayclean.errors import RaycleanError
from rayclean.evaluation.run_figures import epoch_records, run_figures
from rayclean.faults import faults_explained
from rayclean.folder import Folder
from rayclean.sweeps.plan import SweepPlan, Work
from rayclean.sweeps.trial_run import TrialRecord

if TYPE_CHECKING:
    from rayclean.runtime.engines import Workplace

RESULT, EPOCHS, ERROR = "result.json", "epochs.jsonl", "error.json"
"""Files of a trial: its result, its epochs, and for a failed trial its title and error."""
Stopped = bool | Literal["plateau"]
"""Whether a trial was stopped early: False, True (worse than others), or "plateau" (no progress)."""


def run_shared_work(item: tuple[str, Work], place: "Workplace", servers: Any) -> None:
    """Run one verb that several trials share; `servers` are the sweep's language models."""
    verb, work = item
    pipeline.run_verbs(work.config, (verb,), run=work.run, place=replace(place, endpoints=servers))


def run_tune_trial(
    record: TrialRecord,
    on_epoch: Callable[[TrialRecord], None],
    place: "Workplace",
    plan: SweepPlan,
    servers: Any,
) -> TrialRecord:
    """Run a trial of Ray Tune: one of the plan, or a point drawn by Optuna, under every seed.

    Args:
        record: parameters of the trial.
        on_epoch: called with the epochs, unless there are several seeds.
        place: resources that the trial shares with others.
        plan: plan of the sweep.
        servers: language models that run for all trials (`runtime.serve.hosting`).

    Returns:
        The results as `trials` and their mean `figures`; or the `error` that one of them raised.
    """
    works, results = plan.works_of(record), []
    for work in works:
        try:
            callback = on_epoch if len(works) == 1 else lambda _: None
            with faults_explained(work.run.url()):
                results.append(run_trial(work, plan.verbs, callback, replace(place, endpoints=servers)))
                work.run.remove(ERROR)
        except RaycleanError as error:
            with suppress(OSError):  # there may be no room for it
                work.run.write_json({"title": work.title, "error": str(error)}, ERROR)
            return {"trial": work.name, "error": str(error), "figures": {}}
    names = set.intersection(*(set(result["figures"]) for result in results))
    means = {name: fmean(result["figures"][name] for result in results) for name in names}
    return {"figures": means, "trials": results}


def run_trial(
    work: Work, verbs: tuple[str, ...], on_epoch: Callable[[TrialRecord], None], place: "Workplace"
) -> TrialRecord:
    """Run the unfinished verbs of a trial and write its result; the result of a finished trial is read.

    `on_epoch` is called after every epoch with `epoch`, `dev_accuracy`, `dev_loss`, `loss` and the method's
    measures.
    """
    run = work.run
    with run.alone():
        if run.exists(RESULT):
            return dict(run.read_json(RESULT))
        start, reported = time.monotonic(), list[TrialRecord]()

        def report(record: TrialRecord) -> None:
            reported.append(record)
            on_epoch(record)

        pipeline.run_verbs(work.config, verbs, run=run, on_epoch=report, place=place)
        records = epoch_records(run.sub("train")) if "train" in verbs else []
        if not reported:  # finished by an earlier attempt or by a trial with the same training
            for record in records:
                on_epoch(record)
        return write_result(work, run_figures(work.config, run, verbs), records, time.monotonic() - start)


def write_result(
    work: Work,
    figures: dict[str, float],
    records: list[TrialRecord],
    seconds: float,
    stopped: Stopped = False,
) -> TrialRecord:
    """Write `epochs.jsonl`, then `result.json`, whose existence marks a complete trial; returns the result."""
    result = {
        "trial": work.name,
        "point": work.point,
        "seed": work.seed,
        "figures": figures,
        "began": round(time.time() - seconds, 3),
        "wall_seconds": round(seconds, 3),  # without shared verbs, which ran before
        "stopped": stopped,
    }
    work.run.write_text("".join(json.dumps(record) + "\n" for record in records), EPOCHS)
    work.run.write_json(result, RESULT)
    return result


def trial_files(folder: Folder, file: str) -> dict[str, TrialRecord]:
    """Read one JSON file of every trial that has it; returns the contents by trial name, sorted."""
    names = folder.names("trials")
    return {
        name: folder.read_json("trials", name, file) for name in names if folder.exists("trials", name, file)
    }


def trial_epochs(folder: Folder, name: str) -> list[TrialRecord]:
    """The epochs of a finished trial in a sweep's folder; [] if nothing was trained."""
    return [json.loads(line) for line in folder.read_text("trials", name, EPOCHS).splitlines()]
