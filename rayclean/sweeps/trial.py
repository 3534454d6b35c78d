"""Trials in workers of the cluster: they run their verbs and write their results, `result.json` last; and how
results are read again.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from rayclean import pipeline
from rayclean.errors import RaycleanError
from rayclean.evaluation.run_figures import epoch_records, run_figures
from rayclean.folder import Folder
from rayclean.sweeps.plan import SweepPlan, Work
from rayclean.sweeps.trial_run import TrialRecord

if TYPE_CHECKING:
    from rayclean.runtime.engines import Workplace

RESULT, EPOCHS, ERROR = "result.json", "epochs.jsonl", "error.json"
"""Files of a trial; the last one is of a trial that failed, with its title and its error."""
Stopped = bool | Literal["plateau"]
"""Whether a trial was stopped early: False, True (it was worse than others), or "plateau" (its objective
stood still)."""


def run_shared_work(item: tuple[str, Work], place: "Workplace", servers: Any) -> None:
    """Run one verb that several trials share, as one of them; `servers` are the sweep's language models."""
    verb, work = item
    pipeline.run_verbs(work.config, (verb,), run=work.run, place=replace(place, endpoints=servers))


def run_tune_trial(
    record: TrialRecord,
    on_epoch: Callable[[TrialRecord], None],
    place: "Workplace",
    plan: SweepPlan,
    servers: Any,
) -> TrialRecord:
    """Run a trial of Ray Tune: one of the plan, or a point that Optuna drew under every seed.

    Args:
        record: its parameters.
        on_epoch: called with the epochs, unless there are several seeds.
        place: what the trial has in common with others.
        plan: of the sweep.
        servers: language models that run for all trials (`runtime.serve.hosting`).

    Returns:
        The results as `trials` and their mean `figures`; or the `error` that one of them raised, which ends
        no other trial of Tune.
    """
    works, results = plan.works_of(record), []
    for work in works:
        try:
            told = on_epoch if len(works) == 1 else lambda _: None
            results.append(run_trial(work, plan.verbs, told, replace(place, endpoints=servers)))
            work.run.remove(ERROR)
        except RaycleanError as error:
            work.run.write_json({"title": work.title, "error": str(error)}, ERROR)
            return {"trial": work.name, "error": str(error), "figures": {}}
    names = set.intersection(*(set(result["figures"]) for result in results))
    means = {name: fmean(result["figures"][name] for result in results) for name in names}
    return {"figures": means, "trials": results}


def run_trial(
    work: Work, verbs: tuple[str, ...], on_epoch: Callable[[TrialRecord], None], place: "Workplace"
) -> TrialRecord:
    """Run what is not finished of a trial and write its result; a finished one is only read.

    `on_epoch` is called after every epoch with `epoch`, `dev_accuracy`, `dev_loss`, `loss` and the method's
    own measures.
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
        if not reported:  # an earlier attempt, or a trial that shares the training, has finished it
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
    """Write `epochs.jsonl`, then `result.json`: a trial with a result is whole. Returns the result."""
    result = {
        "trial": work.name,
        "point": work.point,
        "seed": work.seed,
        "figures": figures,
        "began": round(time.time() - seconds, 3),
        "wall_seconds": round(seconds, 3),  # without the verbs that it shares, which ran before
        "stopped": stopped,
    }
    work.run.write_text("".join(json.dumps(record) + "\n" for record in records), EPOCHS)
    work.run.write_json(result, RESULT)
    return result


def trial_files(folder: Folder, file: str) -> dict[str, TrialRecord]:
    """A JSON file of every trial in a sweep's folder that has it, by name, sorted."""
    names = folder.names("trials")
    return {
        name: folder.read_json("trials", name, file) for name in names if folder.exists("trials", name, file)
    }


def trial_epochs(folder: Folder, name: str) -> list[TrialRecord]:
    """The epochs of a finished trial in a sweep's folder; [] where nothing was trained."""
    return [json.loads(line) for line in folder.read_text("trials", name, EPOCHS).splitlines()]
