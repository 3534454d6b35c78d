"""Whether the sweep in a folder is the one of this file, and which of its trials are finished.

`sweep.json` says what was swept. Another space is refused, or taken as an extension when the user says so; results of data
or of a base that have changed since stay where they are and are left out.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rayclean.config import parse_config
from rayclean.errors import ArtifactError, ConfigError
from rayclean.folder import Folder
from rayclean.progress import console
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import SweepPlan, Work, base_values, needs_training, sweep_identity, work_of
from rayclean.sweeps.remote import ERROR
from rayclean.sweeps.spec import Sweep

SPEC, JOURNAL, DRAWS = "sweep.json", "optuna.journal", "draws.json"
WITHOUT_RESULT = ("name", "output", "cluster", "evaluate", "seed")
"""Parts of the base on which no trial's name hangs: a sweep goes on on another cluster."""
GROWS = {"space", "seeds", "samples", "objectives"}
"""Keys of a sweep file that leave every trial's result what it was, as long as trials still train, or still do not."""
Record = dict[str, Any]


def same_sweep(spec: Sweep, folder: Folder, extend: bool) -> None:
    """Refuse a folder of another sweep, unless no trial has a result there; write down what is swept now.

    The scheduler counts, though it changes no name: what it stopped has other results than under another one, or under
    another objective, and their table would mix the two.
    """
    swept = folder.read_json(SPEC) if folder.exists(SPEC) else None
    if swept is not None and (changed := config_changes(swept, spec)):
        if not trials.label_names(folder, trials.RESULT):
            folder.remove(JOURNAL)  # Optuna cannot go on in another space
        elif why := _cannot_grow(spec, set(changed)):
            raise ArtifactError(
                f"{folder.url()} holds a sweep whose {', '.join(changed)} differ from this file's: give the sweep another "
                f"name ({why})"
            )
        elif not extend:
            raise ArtifactError(
                f"{folder.url()} holds a sweep whose {', '.join(changed)} differ from this file's: add --extend to keep its "
                "trials and run the new ones"
            )
    folder.write_json(
        _said(spec) | {"left_out": swept.get("left_out", []) if swept is not None else []}, SPEC
    )


def _cannot_grow(spec: Sweep, changed: set[str]) -> str | None:
    """Why its trials cannot be kept."""
    early = spec.scheduler.name != "none" or spec.scheduler.plateau is not None
    if spec.search == "optuna":
        # What it has learnt is of one space, one set of objectives and one way to average.
        return "a search by Optuna can only get more samples" if changed != {"samples"} else None
    if not changed <= GROWS | {"trains"}:
        return "its trials differ in more than the space"
    if "trains" in changed:
        return "its trials differ in more than the space: some train a model at the end, the others do not"
    if early and "objectives" in changed:
        return "trials were stopped by the objectives that it had"
    return None


def take_over(done: Mapping[str, Work], known: Mapping[str, Record], folder: Folder) -> dict[str, Record]:
    """Results of finished trials, each at its point of this plan: a sweep that got another field had none for it when the
    trial ran, and its row would stand beside those of the same setting.
    """
    kept = {}
    for name, work in done.items():
        kept[name] = known[name] | {"point": work.trial.point}
        if known[name]["point"] != work.trial.point:
            folder.write_json(kept[name], "trials", name, trials.RESULT)
    return kept


def leave_out(spec: Sweep, plan: SweepPlan, folder: Folder, results: Sequence[str]) -> None:
    """Note in `sweep.json` which results and errors are not of this space on these data, and say so."""
    errors = [name for name in trials.label_names(folder, ERROR) if name not in plan.work]
    if spec.search == "optuna":
        for name in errors:  # of a point that nobody draws again
            folder.remove("trials", name, ERROR)
        errors = []
    if results:
        console.print(
            f"{len(results)} finished trials in {folder.url()} are of other data, another base or values that are no longer "
            "swept: they are left out",
            style="yellow",
        )
    folder.write_json(folder.read_json(SPEC) | {"left_out": sorted({*results, *errors})}, SPEC)


def finished_trials(spec: Sweep, plan: SweepPlan, known: Mapping[str, Record]) -> dict[str, Work]:
    """Finished trials of this sweep, sorted by name; of Optuna's the results tell what they were."""
    if spec.search != "optuna":
        return {name: plan.work[name] for name in sorted(set(known) & set(plan.work))}
    values = base_values(spec)
    work = [work_of(spec, values, known[name]["point"], known[name]["seed"]) for name in sorted(known)]
    return {each.trial.name: each for each in work if each.trial.name in known}  # the data may have changed


def draws_done(spec: Sweep, known: Mapping[str, Record], folder: Folder) -> int:
    """Draws of Optuna whose points are finished under every seed. One that repeated a point counts as well: a finished sweep
    draws no more.
    """
    times = draws(folder)
    points: dict[str, dict[int, str]] = {}
    for name, result in known.items():
        points.setdefault(json.dumps(result["point"], sort_keys=True), {})[result["seed"]] = name
    whole = [names for names in points.values() if names.keys() >= set(spec.seeds)]
    return sum(max(1, times.get(names[spec.seeds[0]], 0)) for names in whole)


def draws(folder: Folder) -> dict[str, int]:
    """How often Optuna drew a point that came to a result, by the name of its trial under the first seed."""
    return dict(folder.read_json(DRAWS)) if folder.exists(DRAWS) else {}


def config_changes(swept: Record, spec: Sweep) -> list[str]:
    """Keys in which a sweep differs from what was swept before."""
    old, new = _compared(swept), _compared(json.loads(json.dumps(_said(spec))))
    return sorted(key for key in new if old.get(key) != new[key])


def as_swept(spec: Sweep, swept: Record) -> Sweep:
    """With what was set for all trials when they ran and is not said now."""
    kept = {path: value for path, value in swept["set"].items() if path not in spec.space}
    return spec.model_copy(update={"set": {**kept, **spec.set}})


def _said(spec: Sweep) -> Record:
    """What `sweep.json` says of a sweep."""
    said = spec.model_dump(mode="json", exclude=set(Sweep.OPERATIONAL))
    return said | {"base": base_values(spec), "trains": needs_training(spec)}


def _compared(swept: Record) -> Record:
    """What makes a sweep the same one; `set` stands in the base already, under whatever names."""
    base = {key: value for key, value in swept["base"].items() if key not in WITHOUT_RESULT}
    with suppress(ConfigError):  # one that runs only with what the space says is compared as it is written
        base = sweep_identity(parse_config(base))
    return {key: value for key, value in swept.items() if key not in ("set", "left_out")} | {"base": base}
