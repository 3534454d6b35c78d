"""The verb detect, which scores the quality of each label and selects the suspects under the budget.

    survey    every shard of predictions is checked and matched by id with its shard of examples
    fit       every detector reads all shards as often as it needs
    score     shard by shard: each detector's quality and vote, written to `scores/` (removed at the end)
    select    the combined quality of all examples, ranked; the lowest ones under `detect.budget` are suspects
    write     `findings/part-*.parquet`, one per shard of predictions

Survey, fit and score run on the cluster, a shard per task. Select and write run in the driver, which holds
one float32 per detector and example (for exact ranks, where several are combined) and 12 bytes per example.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from rayclean import progress, schema
from rayclean.config import Config
from rayclean.detectors import DETECTORS
from rayclean.detectors.base import Detector, Mapper
from rayclean.detectors.prediction_shards import shard_blocks
from rayclean.detectors.remarks import implausible
from rayclean.detectors.scoring import Scorer, survey_shard
from rayclean.detectors.suspect_selection import SelectedSuspects, select_suspects, write_findings
from rayclean.errors import ArtifactError, ConfigError, DataError
from rayclean.folder import Folder
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import SECONDS_PER_EXAMPLE, VerbNeeds, loaded_examples
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task

logger = logging.getLogger(__name__)

VERSION = 8


def validate(config: Config, run: Run) -> None:
    """Check the names and options of the detectors, and that they are for the task.

    Raises:
        ConfigError: a name or an option is unknown, or a detector compares examples where units are parts of them.
    """
    of_examples = TASKS.resolve(config.task.name).units_are_examples
    for plugin in config.detect.detectors:
        detector = DETECTORS.build(plugin, 2, config.seed)
        if (detector.needs_features or detector.needs_groups) and not of_examples:
            raise ConfigError(
                f"detector {plugin.name!r} compares whole examples, and task {config.task.name!r} doubts parts of them: "
                "leave the detector out of detect.detectors"
            )


def needs(config: Config, run: Run) -> VerbNeeds:
    """Estimate the time to score every example."""
    return VerbNeeds(seconds=SECONDS_PER_EXAMPLE * loaded_examples(run))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Score every example, choose the suspects, write `findings/`.

    Raises:
        DataError: examples have no label.
        ConfigError: a detector needs a table that is not there, or returns no quality.
        ArtifactError: predictions are of other examples.
    """
    load, predict = run.require("load"), run.require("predict")
    loaded = run.manifest("load")
    _require_labels({} if loaded is None else loaded.metrics)
    task = TASKS.build(config.task, schema.LabelSet.from_json(load.read_text("labels.json")))
    answers = len(task.answers)
    detectors = {
        plugin.name: DETECTORS.build(plugin, answers, config.seed) for plugin in config.detect.detectors
    }
    _require_tables(detectors, predict)
    names = _same_shards(load, predict)
    survey = _survey_all(names, load, predict, out, task, engines.map_items)
    fitted = _score_all(
        names, detectors, survey["examples"], load, predict, out, config, task, engines.map_items
    )
    chosen = select_suspects(names, list(detectors), out, config.detect, survey["examples"], config.seed)
    totals = write_findings(names, list(detectors), out, chosen)
    if (totals["examples"], totals["fingerprint"]) != (survey["examples"], survey["fingerprint"]):
        raise ArtifactError(
            f"findings hold {totals['examples']} examples, load/examples {survey['examples']}, or other ids; "
            f"remove {out.url()} and run detect again"
        )
    for temporary in ("scores", "survey.json", "fitted.json"):
        out.remove(temporary)
    metrics = _metrics(totals, fitted, chosen, survey["examples"], task.units_are_called)
    if not task.decides_alone:
        metrics.pop("estimated_noise_rate", None)  # by scores that are no probabilities
    texts = loaded.metrics.get("texts", {}) if loaded is not None and task.units_are_examples else {}
    return metrics | {"alarms": implausible(metrics, texts)}


def _require_labels(loaded: dict[str, Any]) -> None:
    """Refuse examples without labels, which a trained classifier scores and nobody can doubt."""
    if unnamed := loaded.get("without_label", 0):
        raise DataError(
            f"{unnamed:,} of {loaded['examples']:,} examples have no label, so there is nothing to doubt: their scores are in "
            "predict/predictions/. To clean the others, leave these rows out of the data"
        )


def _require_tables(detectors: dict[str, Detector], predict: Folder) -> None:
    """Refuse detectors that need a table of predict which is not there."""
    for name, detector in detectors.items():
        for table, needed in (("features", detector.needs_features), ("folds", detector.needs_groups)):
            if needed and predict.shards(table) != predict.shards("predictions"):
                raise ConfigError(
                    f"detector {name!r} needs {table}, and {predict.url(table)} holds none, or others; run "
                    "'rayclean predict CONFIG --again', or leave the detector out of detect.detectors"
                )


def _same_shards(load: Folder, predict: Folder) -> list[str]:
    names, examples = predict.shards("predictions"), load.shards("examples")
    if names != examples:
        raise ArtifactError(
            f"{predict.url('predictions')} has {len(names)} shards and {load.url('examples')} {len(examples)}, or their "
            "names differ: run 'rayclean predict CONFIG --again'"
        )
    return names


def _survey_all(
    names: list[str], load: Folder, predict: Folder, out: Folder, task: Task, mapper: Mapper
) -> dict[str, int]:
    """Check every shard; returns the number of units and the fingerprint of their ids."""
    if not out.exists("survey.json"):
        folders = {"load": load.url(), "predict": predict.url()}
        survey = partial(survey_shard, **folders, units=task, num_answers=len(task.answers))
        total = {"examples": 0, "fingerprint": 0}
        with progress.progress_bar("check predictions", len(names), "shards") as bar:
            for count, fingerprint in mapper(survey, names):
                total["examples"] += count
                total["fingerprint"] = (total["fingerprint"] + fingerprint) % 2**64
                bar.advance()
        out.write_json(total, "survey.json")
    found: dict[str, int] = out.read_json("survey.json")
    return found


def _score_all(
    names: list[str], detectors: dict[str, Detector], total: int, load: Folder, predict: Folder, out: Folder,
    config: Config, task: Task, mapper: Mapper,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Fit all detectors and score the shards that are not scored yet; returns each detector's `metrics` and `note`."""
    finished = set(out.shards("scores"))
    if set(names) <= finished and out.exists("fitted.json"):
        found: dict[str, dict[str, Any]] = out.read_json("fitted.json")
        return found
    shards = [block for name in names for block in shard_blocks(predict.url(), name, task)]
    states = {}
    for key, detector in detectors.items():
        with progress.progress_bar(f"fit {key}", None, "steps") as bar:
            states[key] = detector.fit(shards, _watched(mapper, bar))
    fitted = {
        key: {"metrics": detector.metrics(states[key]), "note": detector.note(states[key])}
        for key, detector in detectors.items()
    }
    out.write_json(fitted, "fitted.json")
    scorer = Scorer(
        detectors,
        states,
        load.url(),
        predict.url(),
        out.url(),
        config.dataset.dev.clean,
        task,
    )
    with progress.progress_bar("detect", total, "examples") as bar:
        for count in mapper(scorer, [name for name in names if name not in finished]):
            bar.advance(count)
    return fitted


def _watched(mapper: Mapper, bar: progress.ProgressBar) -> Mapper:
    """A mapper that advances a progress bar with every result."""

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for result in mapper(function, items):
            bar.advance()
            yield result

    return mapped


def _metrics(
    totals: dict[str, Any],
    fitted: dict[str, dict[str, Any]],
    chosen: SelectedSuspects,
    total: int,
    units: str,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "examples": total,
        "suspects": len(chosen.ids),
        "share": len(chosen.ids) / total if total else 0.0,
        "budget": chosen.limit,
        "eligible": chosen.eligible,
        "votes": totals["votes"],
        "overlap": totals["all"] / totals["any"] if totals["any"] else 0.0,
    }
    notes = [f"{key} says: {each['note']}" for key, each in fitted.items() if each["note"]]
    for each in fitted.values():
        metrics |= each["metrics"]
    if not len(chosen.ids):
        notes.append(
            "no suspects: nothing else can be suggested for any label (clean development examples aside)"
            if not chosen.eligible
            else f"no suspects: detect.budget allows {chosen.limit} of {total} {units}; raise it"
        )
    if notes:
        metrics["note"] = "; ".join(notes)
        logger.warning("%s", metrics["note"])
    return metrics
