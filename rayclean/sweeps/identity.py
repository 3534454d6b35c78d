"""Whether the sweep in a folder is the one of this file, and which of its trials are finished.

`sweep.json` says what was swept. Another space is refused, or taken as an extension when the user says so; results of data
or of a base that have changed since stay where they are and are left out.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rayclean.artifacts import Folder
from rayclean.errors import ArtifactError
from rayclean.progress import console
from rayclean.sweeps import trial as trials
from rayclean.sweeps.plan import Plan, Work, base_values, work_of
from rayclean.sweeps.spec import Sweep
from rayclean.sweeps.worker import ERROR

SPEC = "sweep.json"
WITHOUT_RESULT = ("name", "output", "cluster", "evaluate")
"""Sections of the base on which no trial's name hangs: a sweep goes on on another cluster."""
GROWS = {"space", "seeds", "samples", "objectives"}
"""Keys of a sweep file that leave every trial's result what it was."""
Record = dict[str, Any]


def same_sweep(spec: Sweep, folder: Folder, extend: bool) -> None:
    """Refuse a folder of another sweep; write down what is swept now.

    The scheduler counts, though it changes no name: what it stopped has other results than under another one, and their
    table would mix the two.
    """
    swept = folder.read_json(SPEC) if folder.exists(SPEC) else None
    if swept is not None and (changed := changes(swept, spec)):
        # What Optuna has learnt is of one space, one set of objectives and one way to average.
        grows = {"samples"} if spec.search == "optuna" else GROWS
        fix = (
            "add --extend to keep its trials and run the new ones"
            if set(changed) <= grows
            else "give the sweep another name (its trials differ in more than the space)"
            if spec.search != "optuna"
            else "give the sweep another name (a search by Optuna can only get more samples)"
        )
        if not (extend and set(changed) <= grows):
            raise ArtifactError(
                f"{folder.url()} holds a sweep whose {', '.join(changed)} differ from this file's: {fix}"
            )
    folder.write_json(
        _said(spec) | {"left_out": swept.get("left_out", []) if swept is not None else []}, SPEC
    )


def leave_out(spec: Sweep, plan: Plan, folder: Folder, results: Sequence[str]) -> None:
    """Note in `sweep.json` which results and errors are not of this space on these data, and say so."""
    errors = [name for name in trials.names(folder, ERROR) if name not in plan.work]
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


def finished(spec: Sweep, plan: Plan, known: Mapping[str, Record]) -> dict[str, Work]:
    """Finished trials of this sweep, sorted by name; of Optuna's the results tell what they were."""
    if spec.search != "optuna":
        return {name: plan.work[name] for name in sorted(set(known) & set(plan.work))}
    values = base_values(spec)
    work = [work_of(spec, values, known[name]["point"], known[name]["seed"]) for name in sorted(known)]
    return {each.trial.name: each for each in work if each.trial.name in known}  # the data may have changed


def points_known(spec: Sweep, known: Mapping[str, Record]) -> int:
    """Points that are finished under every seed."""
    counts = Counter(str(result["point"]) for result in known.values())
    return sum(count >= len(spec.seeds) for count in counts.values())


def changes(swept: Record, spec: Sweep) -> list[str]:
    """Keys in which a sweep differs from what was swept before."""
    old, new = _compared(swept), _compared(json.loads(json.dumps(_said(spec))))
    return sorted(key for key in new if old.get(key) != new[key])


def _said(spec: Sweep) -> Record:
    """What `sweep.json` says of a sweep."""
    return spec.model_dump(mode="json", exclude=set(Sweep.OPERATIONAL)) | {"base": base_values(spec)}


def _compared(swept: Record) -> Record:
    """What makes a sweep the same one; `set` stands in the base already, under whatever names."""
    base = {key: value for key, value in swept["base"].items() if key not in WITHOUT_RESULT}
    return {key: value for key, value in swept.items() if key not in ("set", "left_out")} | {"base": base}
