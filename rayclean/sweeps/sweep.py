"""The execution of a sweep, from its file to its report; the same command resumes it after an interruption.

Finished trials are recognised by their folders (`trial.py`), never by Ray Tune's state. `resume.py` decides
whether a folder holds the same sweep, and which results belong to it.
"""

import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rayclean import interrupts, pipeline, progress
from rayclean.annotators import asked_annotators
from rayclean.errors import ArtifactError
from rayclean.faults import faults_explained
from rayclean.folder import Folder
from rayclean.forecast import forecast
from rayclean.progress import console, print_plain
from rayclean.run import Run
from rayclean.sweeps import resume
from rayclean.sweeps import trial as trials
from rayclean.sweeps.observer import SweepObserver
from rayclean.sweeps.plan import SharedWork, SweepPlan, Work, make_plan, sweep_root
from rayclean.sweeps.repeat import best_config
from rayclean.sweeps.results import Results, collect
from rayclean.sweeps.shared import SharedVerbs
from rayclean.sweeps.space import suggest
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.tracking import Tracker
from rayclean.sweeps.trial_run import TrialRecord

if TYPE_CHECKING:
    from rayclean.runtime.trial_slots import TrialSlots
    from rayclean.runtime.tune_rules import Optuna

PREPARING = ("predict", "detect")
"""Verbs without annotators, which like `load` run before a language model reserves a part of the cluster."""
DRAWS = 16
"""Number of random points from which to infer the verbs that depend on Optuna's fields."""


def run_sweep(spec: Sweep, *, extend: bool = False) -> Results:
    """Run every trial of a sweep without a result, and write the report.

    Args:
        spec: the sweep.
        extend: whether to keep the trials of a folder with another space of the same sweep, and run the new
            ones.

    Returns:
        The results of all trials, including earlier attempts. A failed trial is in `failed` with its error,
        and the same command retries it.

    Raises:
        ConfigError: a trial's config is invalid.
        ArtifactError: the folder holds another sweep.
        ResourceError: the concurrent trials and their trainings would deadlock.
    """
    plan = make_plan(spec)
    folder = plan.folder
    interrupts.say_kept(f"{folder.url()}: finished trials and what they share", whole=True)
    with faults_explained(folder.url()), interrupts.handlers_kept(), Run(folder.url()).locked():
        resume.same_sweep(spec, folder, extend)
        known = resume.take_over(plan)
        tracker = Tracker(spec.tracking, spec.name, folder)
        print_plain(console, describe_sweep(plan, len(known)))
        try:
            for name, (work, result) in known.items():
                tracker.replay(work, result, trials.trial_epochs(folder, name))
            _run_missing(plan, {name: result for name, (_, result) in known.items()}, tracker)
        finally:
            tracker.close()
        results = report_sweep(spec)
    if (unfinished := len(plan.work) - len(results.failed) - results.finished) > 0:
        print_plain(console, f"{unfinished} trials have no result yet; the same command goes on", "yellow")
    return results


def check_sweep(spec: Sweep) -> None:
    """Check a sweep for errors before anything starts.

    Raises:
        RaycleanError: a trial without a result cannot run.
    """
    plan = make_plan(spec)
    known = resume.finished_trials(plan, trials.trial_files(plan.folder, trials.RESULT))
    _validate(plan, [work for name, work in plan.work.items() if name not in known])


def report_sweep(spec: Sweep) -> Results:
    """Collect the finished trials of a sweep and write `report.html`, `results.json` and, with an objective,
    `best.toml`.

    Overrides from its command line, such as the path of the data, need not be repeated.

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
                f"{folder.url()} holds a sweep whose {', '.join(sorted(changed))} differ from this file's: its "
                "results are not this sweep's; undo the change, or give the sweep another name and run it"
            )
    found = {
        name: each for name, each in trials.trial_files(folder, trials.RESULT).items() if name not in left_out
    }
    errors = trials.trial_files(folder, trials.ERROR).items()
    failed = {e["title"]: e["error"] for name, e in errors if name not in found and name not in left_out}
    results = collect(spec, found, failed, {name: trials.trial_epochs(folder, name) for name in found})
    with faults_explained(folder.url()):
        folder.write_json(list(found.values()), "results.json")
        if results.best is not None:
            folder.write_text(best_config(results), "best.toml")
        else:
            folder.remove("best.toml")
        folder.write_text(render_sweep(results), "report.html")
    return results


def describe_sweep(plan: SweepPlan, known: int) -> str:
    """A line that describes the work of a sweep before it runs."""
    spec, drawn = plan.spec, plan.spec.search == "optuna"
    what = f"{len(plan.work):,} trials"
    if drawn:
        what = f"{spec.samples:,} points suggested by Optuna x {len(spec.seeds)} seeds"
    work = plan.likely(spec.samples) if drawn else SharedWork(plan.verbs, plan.work)
    parts = ", ".join(f"{verb} {count:,}x" for verb, count in work.executions().items())
    done = f", {known:,} finished" if known else ""
    return f"{spec.name}: {what}{done}; what they share runs once: {'about ' if drawn else ''}{parts}"


def optuna_search(spec: Sweep, folder: Folder, missing: int) -> "Optuna":
    """The settings of Optuna for the missing points; the seed is new, since object stores hold no journal."""
    from rayclean.runtime.tune_rules import Optuna

    study = folder.path(resume.JOURNAL) if folder.is_local else None
    return Optuna(partial(suggest, spec), missing, spec.draw_seed + spec.samples - missing, study)


def _run_missing(plan: SweepPlan, known: Mapping[str, TrialRecord], tracker: Tracker) -> None:
    """Run the shared verbs, then every trial without a result."""
    from rayclean.runtime import serve
    from rayclean.runtime.cluster import connected, cpu_count
    from rayclean.runtime.preflight import preflight_sweep, trains_small
    from rayclean.runtime.trial_slots import trial_slots
    from rayclean.verbs.compare_networks import compares_heads

    spec, drawn = plan.spec, plan.spec.search == "optuna"
    todo = {name: work for name, work in plan.work.items() if name not in known}
    count = spec.samples - resume.draws_done(spec, known) if drawn else len(todo)
    if count <= 0:
        return
    configs = [work.config for work in _validate(plan, [*todo.values()])]
    shared = plan.likely(DRAWS) if drawn else SharedWork(plan.verbs, todo)
    levels, cluster = shared.levels(), configs[0].cluster  # the same for all trials
    with connected(cluster):
        # Predict trains as well, and runs in the trials unless they share it.
        trains = "train" in plan.verbs or shared.leaves("predict")
        # Beside the language models, if predict is shared, only evaluate runs networks: those that no head completes.
        networks = shared.leaves("predict") or not all(map(compares_heads, configs))
        models = preflight_sweep(configs, trains=trains, networks=networks)
        fits = partial(trial_slots, cluster, cpus=spec.trials.cpus, small=trains_small(configs))
        slots = fits(trains=trains, concurrent=spec.trials.concurrent, trials=count, beside=models)
        observer = SweepObserver(plan, tracker, count)
        one_each = fits(trains=False, concurrent=None, trials=sys.maxsize) if cpu_count() else None
        first = SharedVerbs(fits(trains=True, concurrent=None, trials=count), one_each)
        first.run([level for level in levels if level[0][0] == "load"])
        todo = first.possible(todo, observer)  # the number of questions depends on the loaded data
        works = (plan.likely(count).work if drawn else todo).values()
        runs = [(work.config, work.run, work.fingerprints) for work in works]
        questions = forecast(runs, plan.verbs, drawn=drawn)
        print_plain(console, f"{slots.concurrent} at once, each holds {slots.cpus:g} CPU; {questions}")
        first.run([level for level in levels if level[0][0] in PREPARING])
        todo = first.possible(todo, observer)  # before a language model is started needlessly
        annotators = [annotator for config in configs for annotator in asked_annotators(config)]
        with serve.hosting(annotators, plan.folder.url()) as servers:
            # Shared verbs run as tasks, which need the CPUs that trials would hold.
            waiting = type(slots)(slots.concurrent, min(slots.cpus, spec.trials.cpus))
            later = SharedVerbs(waiting, None, servers, first.failed)
            later.run([level for level in levels if level[0][0] not in ("load", *PREPARING)])
            _run_trials(plan, later.possible(todo, observer), servers, slots, observer, trains)


def _run_trials(
    plan: SweepPlan,
    todo: Mapping[str, Work],
    servers: Any,
    slots: "TrialSlots",
    observer: SweepObserver,
    trains: bool,
) -> None:
    from rayclean.runtime import tune, tune_rules

    spec, early = plan.spec, plan.spec.scheduler
    with progress.progress_bar(f"sweep {spec.name}", observer.total, "trials") as observer.bar:
        observer.begin()
        tune.run_trials(
            partial(trials.run_tune_trial, plan=plan, servers=servers),
            [{"name": name, **work.overrides} for name, work in todo.items()],
            slots,
            observer,
            trains=trains,
            objectives=[(objective.metric, objective.mode) for objective in spec.objectives],
            early=tune_rules.EarlyStopping(early.name, early.grace, early.reduction, early.plateau),
            optuna=optuna_search(spec, plan.folder, observer.total) if spec.search == "optuna" else None,
            seconds=spec.trials.seconds,
            retries=spec.trials.retries,
        )


def _validate(plan: SweepPlan, todo: list[Work]) -> list[Work]:
    """Check every distinct set of plug-ins and data once (with Optuna, those of a sample); returns the trials checked."""
    works = [plan.sample()] if plan.spec.search == "optuna" else todo
    configs = [(work.config, work) for work in works]
    different = {
        f"{c.encoder}{c.annotator}{c.relabel.annotators}{c.method}{c.predict}{c.detect}{c.dataset.path}": w
        for c, w in configs
    }
    for work in different.values():
        pipeline.validate_verbs(work.config, plan.verbs, work.run)
    return works
