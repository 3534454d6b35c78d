"""A sweep from its file to its report: plan, share, run, collect. The same command goes on after any
interruption.

Finished trials are known by their folders (`trial.py`), never by Ray Tune's state. `resume.py` decides
whether a folder holds this very sweep, and which results belong to it.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rayclean import pipeline, progress
from rayclean.annotators import asked_annotators
from rayclean.errors import ArtifactError
from rayclean.folder import Folder
from rayclean.progress import console
from rayclean.run import Run
from rayclean.sweeps import resume
from rayclean.sweeps import trial as trials
from rayclean.sweeps.forecast import forecast
from rayclean.sweeps.observer import SweepObserver
from rayclean.sweeps.plan import (
    SweepPlan,
    Work,
    any_point,
    base_values,
    likely,
    make_plan,
    shared_work,
    sweep_root,
    work_of,
)
from rayclean.sweeps.remote import ERROR, SweepContext, run_named_trial, run_suggested_trial
from rayclean.sweeps.repeat import best_config
from rayclean.sweeps.results import Results, collect
from rayclean.sweeps.shared import SharedVerbs
from rayclean.sweeps.space import suggester
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.tracking import Tracker, open_tracker
from rayclean.sweeps.trial_run import TrialRecord

if TYPE_CHECKING:
    from rayclean.runtime.trial_slots import TrialSlots
    from rayclean.runtime.tune_rules import Optuna

PREPARING = ("predict", "detect")
"""Verbs that ask nobody: like `load` they have the whole cluster, before a language model takes its part."""


def run_sweep(spec: Sweep, *, extend: bool = False) -> Results:
    """Run every trial of a sweep that has no result yet, and write its report.

    Args:
        spec: the sweep.
        extend: the folder holds another space of the same sweep: keep its trials, and run the new ones.

    Returns:
        The results of all trials, also of earlier attempts. A trial that failed is in `failed` with its
        error, and the same command tries it again.

    Raises:
        ConfigError: a trial's config cannot work.
        ArtifactError: the folder holds another sweep.
        ResourceError: trials and their trainings would wait for each other for ever.
    """
    plan = make_plan(spec)
    folder = Folder(sweep_root(spec))
    with Run(folder.url()).locked():
        resume.same_sweep(spec, folder, extend)
        found = trials.finished_results(folder)
        done = resume.finished_trials(spec, plan, found)
        known = resume.take_over(done, found, folder)
        resume.leave_out(spec, plan, folder, sorted(found.keys() - known.keys()))
        tracker = open_tracker(spec.tracking, spec.name, folder.url())
        console.print(describe_sweep(spec, plan, len(known)), highlight=False)
        try:
            for name, work in done.items():
                tracker.replay(work, known[name], trials.trial_epochs(folder, name))
            _run_missing(spec, plan, known, folder, tracker)
        finally:
            tracker.close()
        results = report_sweep(spec)
    unfinished = 0 if spec.search == "optuna" else len(plan.work) - len(results.failed) - results.finished
    if unfinished:
        console.print(f"{unfinished} trials have no result yet; the same command goes on", style="yellow")
    return results


def check_sweep(spec: Sweep) -> None:
    """Find the errors that can be known before anything starts.

    Raises:
        RaycleanError: a trial without a result cannot work.
    """
    plan, folder = make_plan(spec), Folder(sweep_root(spec))
    known = resume.finished_trials(spec, plan, trials.finished_results(folder))
    todo = [work for name, work in plan.work.items() if name not in known]
    _validate(plan.verbs, todo if spec.search == "random" else [_sample(spec)], folder)


def report_sweep(spec: Sweep) -> Results:
    """Collect the finished trials of a sweep and write `report.html`, `results.json` and, with an objective,
    `best.toml`.

    Overrides that its command line gave (where the data are, say) need not be given again.

    Raises:
        ArtifactError: the folder holds another sweep.
    """
    from rayclean.sweeps.page.report import render_sweep

    folder, left_out = Folder(sweep_root(spec)), set[str]()
    if folder.exists(resume.SPEC):
        swept = folder.read_json(resume.SPEC)
        spec, left_out = resume.as_swept(spec, swept), set(swept["left_out"])
        if changed := set(resume.config_changes(swept, spec)) - resume.GROWS:
            raise ArtifactError(
                f"{folder.url()} holds a sweep whose {', '.join(sorted(changed))} differ from this file's: "
                "its results are "
                "not this sweep's; undo the change, or give the sweep another name and run it"
            )
    found = {name: result for name, result in trials.finished_results(folder).items() if name not in left_out}
    failed = {}
    for name in trials.trials_with(folder, ERROR):
        if name not in found and name not in left_out:
            entry = folder.read_json("trials", name, ERROR)
            failed[entry["title"]] = entry["error"]
    results = collect(spec, found, failed, {name: trials.trial_epochs(folder, name) for name in found})
    folder.write_json([found[name] for name in sorted(found)], "results.json")
    if results.best is not None:
        folder.write_text(best_config(results), "best.toml")
    else:
        folder.remove("best.toml")
    folder.write_text(render_sweep(results), "report.html")
    return results


def describe_sweep(spec: Sweep, plan: SweepPlan, known: int) -> str:
    """A line on the work of a sweep, before it runs."""
    drawn = spec.search == "optuna"
    counts = (likely(spec, plan.verbs, spec.samples) if drawn else plan).executions()
    parts = ", ".join(f"{verb} {count:,}x" for verb, count in counts.items())
    done = f", {known:,} finished" if known else ""
    if drawn:
        what = f"{spec.samples:,} points suggested by Optuna x {len(spec.seeds)} seeds"
        return f"{spec.name}: {what}{done}; what they share runs once: about {parts}"
    return f"{spec.name}: {len(plan.work):,} trials{done}; what they share runs once: {parts}"


def optuna_search(spec: Sweep, folder: Folder, missing: int) -> "Optuna":
    """How the missing points are drawn: with another seed than those before, since object stores keep no
    journal.
    """
    from rayclean.runtime.tune_rules import Optuna

    study = folder.path(resume.JOURNAL) if folder.is_local else None
    return Optuna(suggester(spec), missing, spec.draw_seed + spec.samples - missing, study)


def _run_missing(
    spec: Sweep, plan: SweepPlan, known: Mapping[str, TrialRecord], folder: Folder, tracker: Tracker
) -> None:
    """Run every trial without a result, after the verbs that they share."""
    from rayclean.runtime import serve
    from rayclean.runtime.cluster import connected, cpu_count
    from rayclean.runtime.preflight import preflight_sweep
    from rayclean.runtime.trial_slots import trial_slots

    values, drawn = base_values(spec), spec.search == "optuna"
    todo = {name: work for name, work in plan.work.items() if name not in known}
    count = spec.samples - resume.draws_done(spec, known, folder) if drawn else len(todo)
    if count <= 0:
        return
    sample = _sample(spec)
    _validate(plan.verbs, [*todo.values()] or [sample], folder)
    shared = shared_work(spec, plan, todo)
    levels = shared.shared(folder.url())
    configs = [work.config for work in todo.values()] or [sample.config]
    cluster = sample.config.cluster  # the same for all trials
    with connected(cluster):
        # Predict trains, too, and is left to the trials where they do not share it.
        trains = "train" in plan.verbs or shared.leaves("predict", folder.url())
        models = preflight_sweep(configs, trains=trains)
        fits = partial(trial_slots, cluster, cpus=spec.trials.cpus)
        slots = fits(trains=trains, concurrent=spec.trials.concurrent, trials=count, beside=models)
        observer = SweepObserver(spec, folder, plan, values, tracker, count)
        first = SharedVerbs(
            SweepContext(folder.url(), plan.verbs, {}),
            fits(trains=True, concurrent=None, trials=count),
            fits(trains=False, concurrent=None, trials=sys.maxsize) if cpu_count() else None,
        )
        first.run([level for level in levels if level[0][0] == "load"])
        todo = first.possible(todo, observer)  # the loaded data tell how much there is to ask
        works = likely(spec, plan.verbs, count).work if drawn else todo
        questions = forecast([*works.values()], folder, plan.verbs, drawn=drawn)
        console.print(
            f"{slots.concurrent} at once, each holds {slots.cpus:g} CPU; {questions}", highlight=False
        )
        first.run([level for level in levels if level[0][0] in PREPARING])
        todo = first.possible(todo, observer)  # before a language model starts for nobody
        asked = [annotator for config in configs for annotator in asked_annotators(config)]
        with serve.hosting(asked, folder.url()) as servers:
            context = replace(first.context, servers=servers)
            # Shared verbs are tasks, which need the CPUs that trials would hold.
            waiting = replace(slots, cpus=min(slots.cpus, spec.trials.cpus))
            later = SharedVerbs(context, waiting, None, first.failed)
            later.run([level for level in levels if level[0][0] not in ("load", *PREPARING)])
            todo = later.possible(todo, observer)
            _run_trials(spec, todo, values, context, slots, observer, trains=trains)


def _run_trials(
    spec: Sweep,
    todo: Mapping[str, Work],
    values: TrialRecord,
    context: SweepContext,
    slots: "TrialSlots",
    observer: SweepObserver,
    *,
    trains: bool,
) -> None:
    from rayclean.runtime import tune, tune_rules

    early, optuna = spec.scheduler, None
    run: Callable[..., Any] = partial(run_named_trial, work=dict(todo), context=context)
    if spec.search == "optuna":
        optuna = optuna_search(spec, Folder(context.url), observer.total)
        run = partial(run_suggested_trial, spec=spec, values=values, context=context)
    with progress.progress_bar(f"sweep {spec.name}", observer.total, "trials") as observer.bar:
        observer.begin()
        tune.run_trials(
            run,
            [{"name": name, **work.trial.overrides} for name, work in todo.items()],
            slots,
            observer,
            trains=trains,
            objectives=[(objective.metric, objective.mode) for objective in spec.objectives],
            early=tune_rules.EarlyStopping(early.name, early.grace, early.reduction, early.plateau),
            optuna=optuna,
            seconds=spec.trials.seconds,
            retries=spec.trials.retries,
        )


def _sample(spec: Sweep) -> Work:
    return work_of(spec, base_values(spec), any_point(spec), spec.seeds[0])


def _validate(verbs: tuple[str, ...], todo: list[Work], folder: Folder) -> None:
    """Check every different set of plug-ins and data, once."""
    seen = set()
    for work in todo:
        config = work.config
        parts = (
            config.encoder,
            config.annotator,
            config.relabel.annotators,
            config.method,
            config.predict,
            config.dataset.path,
            config.detect,
        )
        key = "".join(map(str, parts))
        if key not in seen:
            seen.add(key)
            pipeline.validate_verbs(config, verbs, work.run(folder.url()))
