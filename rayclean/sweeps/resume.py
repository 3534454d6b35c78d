"""Resumption of a sweep: whether its folder holds the same sweep, and which of its trials are finished.

`sweep.json` records the sweep. Another space is refused, or accepted as an extension on request; results of
other data or of another base are kept but ignored.
"""

import json
from collections.abc import Mapping
from contextlib import suppress

from rayclean.config import parse_config
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.progress import console, print_plain
from rayclean.sweeps.plan import SweepPlan, Work, base_values, needs_training
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.trial import ERROR, RESULT, trial_files
from rayclean.sweeps.trial_run import TrialRecord
from rayclean.verb_fingerprints import config_identity

SPEC, JOURNAL = "sweep.json", "optuna.journal"
WITHOUT_RESULT = ("name", "output", "cluster", "evaluate", "seed")
"""Parts of the base config that do not affect results, so that a sweep may be resumed on another cluster."""
GROWS = {"space", "seeds", "samples", "objectives"}
"""Keys of a sweep file that can be extended without affecting existing results, if `trains` stays the same."""


def same_sweep(spec: Sweep, folder: Folder, extend: bool) -> None:
    """Refuse the folder of another sweep, unless it holds no results; write `sweep.json`.

    A change of the scheduler is refused although it changes no trial's name: the results of stopped trials
    depend on it and on the objective.
    """
    swept = folder.read_json(SPEC) if folder.exists(SPEC) else {}
    if swept and (changed := config_changes(swept, spec)):
        differ = f"{folder.url()} holds a sweep whose {', '.join(changed)} differ from this file's:"
        if not trial_files(folder, RESULT):
            folder.remove(JOURNAL)  # Optuna cannot continue in another space
        elif reason := _cannot_grow(spec, set(changed)):
            raise ArtifactError(f"{differ} give the sweep another name ({reason})")
        elif not extend:
            raise ArtifactError(f"{differ} add --extend to keep its trials and run the new ones")
    folder.write_json(_description(spec) | {"left_out": swept.get("left_out", [])}, SPEC)


def _cannot_grow(spec: Sweep, changed: set[str]) -> str | None:
    """The reason why finished trials cannot be kept; None if they can."""
    if spec.search == "optuna":
        # Optuna's model depends on the space, the objectives and the seeds.
        return "a search by Optuna can only get more samples" if changed != {"samples"} else None
    if not changed <= GROWS | {"trains"}:
        return "its trials differ in more than the space"
    if "trains" in changed:
        return "its trials differ in more than the space: some train a model at the end, the others do not"
    if spec.scheduler.stops and "objectives" in changed:
        return "trials were stopped by the objectives that it had"
    return None


def take_over(plan: SweepPlan) -> dict[str, tuple[Work, TrialRecord]]:
    """The finished trials of this sweep and their results, at their points of this plan. Trials without a
    field that was added to the space have its base value.

    Results and errors of another space or other data are listed in `sweep.json`, and their number is printed.
    """
    folder, results = plan.folder, trial_files(plan.folder, RESULT)
    known = {}
    for name, work in finished_trials(plan, results).items():
        known[name] = (work, results[name] | {"point": work.point})
        if results[name]["point"] != work.point:
            folder.write_json(known[name][1], "trials", name, RESULT)
    errors = trial_files(folder, ERROR).keys() - plan.work.keys()
    if plan.spec.search == "optuna":
        for name in errors:  # this point is never drawn again
            folder.remove("trials", name, ERROR)
        errors = set()
    if left := results.keys() - known.keys():
        print_plain(
            console,
            f"{len(left)} finished trials in {folder.url()} are of other data, another base or values that are no "
            "longer swept: they are left out",
            style="yellow",
        )
    folder.write_json(folder.read_json(SPEC) | {"left_out": sorted(left | errors)}, SPEC)
    return known


def finished_trials(plan: SweepPlan, results: Mapping[str, TrialRecord]) -> dict[str, Work]:
    """Finished trials of this sweep, sorted by name; with Optuna the points come from their results."""
    if plan.spec.search != "optuna":
        return {name: plan.work[name] for name in sorted(results.keys() & plan.work.keys())}
    works = {name: plan.work_at(results[name]["point"], results[name]["seed"]) for name in sorted(results)}
    return {name: work for name, work in works.items() if work.name == name}  # the data may have changed


def draws_done(spec: Sweep, known: Mapping[str, TrialRecord]) -> int:
    """Number of Optuna's draws, repeated points included, that are finished under every seed."""
    points: dict[str, dict[int, TrialRecord]] = {}
    for result in known.values():
        points.setdefault(json.dumps(result["point"], sort_keys=True), {})[result["seed"]] = result
    complete = [results for results in points.values() if results.keys() >= set(spec.seeds)]
    return sum(results[spec.seeds[0]].get("draws", 1) for results in complete)


def config_changes(swept: TrialRecord, spec: Sweep) -> list[str]:
    """Keys in which a sweep differs from an earlier one."""
    old, new = _compared(swept), _compared(json.loads(json.dumps(_description(spec))))
    return sorted(key for key in new if old.get(key) != new[key])


def as_swept(spec: Sweep, swept: TrialRecord) -> Sweep:
    """The sweep with the overrides under which its trials ran, which a report need not repeat."""
    kept = {path: value for path, value in swept["overrides"].items() if path not in spec.space}
    return spec.model_copy(update={"set": {**spec.set, **kept, **spec.overrides}})


def _description(spec: Sweep) -> TrialRecord:
    """The content of `sweep.json`, but for the results that are left out."""
    return spec.identity() | {"base": base_values(spec), "trains": needs_training(spec)}


def _compared(swept: TrialRecord) -> TrialRecord:
    """The part of `sweep.json` that makes a sweep the same one; `set` is part of the base already."""
    base = {key: value for key, value in swept["base"].items() if key not in WITHOUT_RESULT}
    with suppress(
        ConfigError
    ):  # a base that is complete only with values of the space is compared as written
        base = config_identity(parse_config(base))
    ignored = ("set", "overrides", "left_out")
    return {key: value for key, value in swept.items() if key not in ignored} | {"base": base}
