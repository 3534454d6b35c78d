"""A sweep from its file to its report: plan, share, run, collect. The same command goes on after any interruption.

What is finished stands in the trials' folders (`trial.py`), never in Ray Tune's state. Whether a folder holds this very
sweep, and which results are of it, is `identity.py`'s to say.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rayclean import pipeline, progress
from rayclean.annotators import build_annotator
from rayclean.errors import ArtifactError, RaycleanError
from rayclean.folder import Folder
from rayclean.progress import console
from rayclean.run import Run
from rayclean.sweeps import trial as trials
from rayclean.sweeps.callbacks import Watch
from rayclean.sweeps.forecast import forecast
from rayclean.sweeps.plan import (
    Level,
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
from rayclean.sweeps.remote import ERROR, SweepContext, run_named_trial, run_shared_work, run_suggested_trial
from rayclean.sweeps.results import Results, best_config, collect
from rayclean.sweeps.resume import (
    GROWS,
    JOURNAL,
    SPEC,
    as_swept,
    config_changes,
    draws_done,
    finished_trials,
    leave_out,
    same_sweep,
    take_over,
)
from rayclean.sweeps.space import suggester
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.tracking import Tracker, open_tracker

if TYPE_CHECKING:
    from rayclean.runtime.tune_rules import Optuna

PREPARING = ("predict", "detect")
"""Verbs that ask nobody: like `load` they have the whole cluster, before a language model takes its part."""
SINGLE = ("load", "detect")
"""Those of them that hold nothing but the process they run in."""
ROUNDS = 2
"""So many for each core are enough."""
Record = dict[str, Any]


def run_sweep(spec: Sweep, *, extend: bool = False) -> Results:
    """Run every trial of a sweep that has no result yet, and write its report.

    Args:
        spec: what to sweep.
        extend: the folder holds another space of the same sweep: keep what is there, and run what is new.

    Returns:
        The results of all trials, also of earlier attempts. A trial that failed stands in `failed` with its error, and the
        same command tries it again.

    Raises:
        ConfigError: a trial's config cannot work.
        ArtifactError: the folder holds another sweep.
        ResourceError: trials and their trainings would wait for each other for ever.
    """
    plan = make_plan(spec)
    folder = Folder(sweep_root(spec))
    with Run(folder.url()).locked():
        same_sweep(spec, folder, extend)
        found = trials.finished_results(folder)
        done = finished_trials(spec, plan, found)
        known = take_over(done, found, folder)
        leave_out(spec, plan, folder, sorted(found.keys() - known.keys()))
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
    """What can be known to be wrong before anything starts.

    Raises:
        RaycleanError: a trial without a result cannot work.
    """
    plan, folder = make_plan(spec), Folder(sweep_root(spec))
    known = finished_trials(spec, plan, trials.finished_results(folder))
    todo = [work for name, work in plan.work.items() if name not in known]
    _validate(plan.verbs, todo if spec.search == "random" else [_sample(spec)], folder)


def _sample(spec: Sweep) -> Work:
    return work_of(spec, base_values(spec), any_point(spec), spec.seeds[0])


def _run_missing(
    spec: Sweep, plan: SweepPlan, known: Mapping[str, Record], folder: Folder, tracker: Tracker
) -> None:
    """Every trial without a result."""
    from rayclean.runtime import serve
    from rayclean.runtime.cluster import connected, cpu_count
    from rayclean.runtime.preflight import preflight_sweep
    from rayclean.runtime.trial_slots import trial_slots

    values = base_values(spec)
    todo = {name: work for name, work in plan.work.items() if name not in known}
    count = len(todo) if spec.search == "random" else spec.samples - draws_done(spec, known, folder)
    if count <= 0:
        return
    sample = _sample(spec)
    _validate(plan.verbs, [*todo.values()] or [sample], folder)
    shared = shared_work(spec, plan, todo)
    levels = shared.shared(folder.url())
    asked = [work.config for work in todo.values()] or [sample.config]
    cluster = sample.config.cluster  # the same for all trials
    with connected(cluster):
        # Predict trains, too, and is left to the trials where they do not share it.
        trains = "train" in plan.verbs or shared.leaves("predict", folder.url())
        models = preflight_sweep(asked, trains=trains)
        fits = partial(trial_slots, cluster, cpus=spec.trials.cpus)
        place = SweepContext(folder.url(), plan.verbs, {})
        where = fits(trains=trains, concurrent=spec.trials.concurrent, trials=count, beside=models)
        alone = fits(trains=True, concurrent=None, trials=count)
        cores = fits(trains=False, concurrent=None, trials=sys.maxsize) if cpu_count() else None
        watch = Watch(spec, folder, plan, values, tracker, count)
        lost: dict[str, RaycleanError] = {}
        loads, before = (
            [level for level in levels if level[0][0] in verbs] for verbs in (("load",), PREPARING)
        )
        lost |= _share(loads, lost, place, alone, cores)  # then it is known how much there is to ask
        todo = _without(todo, lost, watch)
        drawn = spec.search == "optuna"
        works = likely(spec, plan.verbs, count).work if drawn else todo
        questions = forecast([*works.values()], folder, plan.verbs, drawn=drawn)
        console.print(
            f"{where.concurrent} at once, each holds {where.cpus:g} CPU; {questions}", highlight=False
        )
        lost |= _share(before, lost, place, alone, cores)
        todo = _without(todo, lost, watch)  # before a language model starts for nobody
        annotators = (build_annotator(config, ()) for config in asked)
        with serve.hosting(annotators, folder.url()) as servers:
            place = replace(place, servers=servers)
            waiting = replace(where, cpus=min(where.cpus, spec.trials.cpus))  # for tasks, which need the CPUs
            lost |= _share(levels[len(loads) + len(before) :], lost, place, waiting)
            todo = _without(todo, lost, watch)
            _run(spec, todo, values, place, where, watch, trains=trains)


def search_sweep(spec: Sweep, folder: Folder, missing: int) -> "Optuna":
    """How the missing points are drawn: not as those before, of which an object store has no journal."""
    from rayclean.runtime.tune_rules import Optuna

    study = folder.path(JOURNAL) if folder.is_local else None
    return Optuna(suggester(spec), missing, spec.draw_seed + spec.samples - missing, study)


def report_sweep(spec: Sweep) -> Results:
    """Collect what is finished of a sweep and write `report.html`, `results.json` and, with an objective, `best.toml`.

    What was set for it on the command line (where the data lie, say) need not be said again.

    Raises:
        ArtifactError: the folder holds another sweep.
    """
    from rayclean.sweeps.page.report import render_sweep

    folder = Folder(sweep_root(spec))
    swept = folder.read_json(SPEC) if folder.exists(SPEC) else None
    if swept is not None:
        spec = as_swept(spec, swept)
    if swept is not None and (changed := set(config_changes(swept, spec)) - GROWS):
        raise ArtifactError(
            f"{folder.url()} holds a sweep whose {', '.join(sorted(changed))} differ from this file's: its results are not "
            "this sweep's; undo the change, or give the sweep another name and run it"
        )
    left_out = set(swept.get("left_out", ())) if swept is not None else set()
    found = {name: result for name, result in trials.finished_results(folder).items() if name not in left_out}
    failed = {}
    for name in trials.label_names(folder, ERROR):
        if name not in found and name not in left_out:
            entry = folder.read_json("trials", name, ERROR)
            failed[entry["title"]] = entry["error"]
    epochs = {name: trials.trial_epochs(folder, name) for name in found}
    results = collect(spec, found, failed, epochs)
    folder.write_json([found[name] for name in sorted(found)], "results.json")
    if results.best is not None:
        folder.write_text(best_config(results), "best.toml")
    else:
        folder.remove("best.toml")
    folder.write_text(render_sweep(results), "report.html")
    return results


def describe_sweep(spec: Sweep, plan: SweepPlan, known: int) -> str:
    """What will run, before it does."""
    drawn = spec.search == "optuna"
    own = (likely(spec, plan.verbs, spec.samples) if drawn else plan).own()
    parts = ", ".join(f"{verb} {count:,}x" for verb, count in own.items())
    done = f", {known:,} finished" if known else ""
    if drawn:
        points = f"{spec.samples:,} points suggested by Optuna"
        return (
            f"{spec.name}: {points} x {len(spec.seeds)} seeds{done}; what they share runs once: about {parts}"
        )
    return f"{spec.name}: {len(plan.work):,} trials{done}; what they share runs once: {parts}"


def _validate(verbs: tuple[str, ...], todo: list[Work], folder: Folder) -> None:
    """Every different plug-in of every trial, once."""
    seen = set()
    for work in todo:
        config = work.config
        parts = (
            config.encoder,
            config.annotator,
            config.method,
            config.predict,
            config.dataset.path,
            config.detect,
        )
        mark = "".join(part if isinstance(part, str) else str(part) for part in parts)
        if mark not in seen:
            seen.add(mark)
            pipeline.validate_verbs(config, verbs, work.run(folder.url()))


def _share(
    levels: Sequence[Level],
    lost: Mapping[str, RaycleanError],
    place: SweepContext,
    slots: Any,
    cores: Any = None,
) -> dict[str, RaycleanError]:
    """Run what several trials share, once each, verb after verb; of what hangs on something lost nothing is begun.

    Args:
        levels: verb by verb.
        lost: what failed before.
        place: what all trials have in common.
        slots: how many at once, where each spreads over the cluster.
        cores: how many at once, where each computes in its own process, as it does where there are enough of them.

    Returns:
        Fingerprint of a verb that failed -> its error.
    """
    from rayclean.runtime import tune

    failed: dict[str, RaycleanError] = {}
    if not levels:
        return failed
    with progress.progress_bar("shared by trials", sum(map(len, levels)), "verbs") as task:
        for level in levels:
            gone = lost.keys() | failed.keys()
            possible = [item for item in level if not gone & set(item[1].prints.values())]
            # Enough of them keep the cores busy nearly to the end; further processes for each would cost more.
            single = (
                cores is not None and level[0][0] in SINGLE and len(possible) >= ROUNDS * cores.concurrent
            )
            said = tune.run_side_by_side(
                partial(run_shared_work, place=place), possible, cores if single else slots, alone=single
            )
            for (verb, work), error in zip(possible, said, strict=True):
                if error is not None:
                    failed[work.prints[verb]] = error
            task.advance(len(level))
    return failed


def _without(todo: Mapping[str, Work], lost: Mapping[str, RaycleanError], watch: Watch) -> dict[str, Work]:
    """The trials that can still run; the others fail with what they share.

    Raises:
        RaycleanError: none can.
    """
    kept = {}
    for name, work in todo.items():
        if broken := [lost[mark] for mark in work.prints.values() if mark in lost]:
            watch.failed(work, str(broken[0]))
        else:
            kept[name] = work
    if lost and not kept:  # also with Optuna, whose trials all stand on what is shared
        raise next(iter(lost.values()))
    watch.total -= len(todo) - len(kept)
    return kept


def _run(
    spec: Sweep,
    todo: Mapping[str, Work],
    values: Record,
    place: SweepContext,
    slots: Any,
    watch: Watch,
    *,
    trains: bool,
) -> None:
    """Every trial that has no result."""
    from rayclean.runtime import tune, tune_rules

    folder, early = Folder(place.url), spec.scheduler
    optuna = search_sweep(spec, folder, watch.total) if spec.search == "optuna" else None
    with progress.progress_bar(f"sweep {spec.name}", watch.total, "trials") as watch.task:
        watch.begin()
        tune.run_trials(
            partial(run_suggested_trial, spec=spec, values=values, place=place)
            if optuna
            else partial(run_named_trial, work=dict(todo), place=place),
            [{"name": name, **work.trial.overrides} for name, work in todo.items()],
            slots,
            watch,
            trains=trains,
            objectives=[(objective.metric, objective.mode) for objective in spec.objectives],
            early=tune_rules.EarlyStopping(early.name, early.grace, early.reduction, early.plateau),
            optuna=optuna,
            seconds=spec.trials.seconds,
            retries=spec.trials.retries,
            loggers=spec.tracking.loggers,
            folder=folder.url("loggers"),
        )
