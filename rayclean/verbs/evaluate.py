"""evaluate: measure against whatever truth is known, compare the networks, write `metrics.json` and `report.html`.

Opens `load/truth/`. Beside it only `evaluation.subsets` does, for figures shown next to a training, and the simulated
annotator. Keys of `metrics.json` (null: not known here, or undefined):

    noise.given, noise.final        share of wrong labels before and after, over examples of known truth
    noise.by_split                  the same and the number of examples, per split
    noise.estimated                 what confident learning estimates without any truth
    noise.injected                  kind, requested and realised rate, where noise was injected on purpose
    harm                            clean labels made wrong, as a share of the clean labels
    repaired                        wrong labels made right, as a share of the wrong labels
    detection.roc_auc               of the combined quality for "the given label is wrong"; .average_precision likewise
    detection.precision_at_budget   share of the suspects whose label is wrong
    detection.recall_at_budget      share of the wrong labels that are suspects
    detection.precision_at_10       share of wrong labels among the 10 % of lowest quality
    detection.share                 suspects, as a share of the examples
    detection.detectors.<name>      the same of each detector alone (.precision_at_budget: of as many lowest qualities
                                    as there are suspects), its votes, their precision and recall
    annotator.accuracy              right answers, over answered suspects whose truth is one of the candidates
    annotator.accuracy_all          right answers, over all answered suspects
    annotator.truth_among_candidates  share of the suspects whose truth is one of the candidates
    annotator.ece, .reliability     calibration of its confidence, in total and by bins
    annotator.outcomes, .errors     suspects by what became of them; failed queries by kind
    annotator.name, .model          who answered
    accuracy.given/.cleaned/.true   test accuracy of one network trained alike on given, cleaned and true labels
    accuracy.trained, .last         test accuracy of the network that `train` wrote, by the configured method, at its best
                                    epoch and at its last
    f1_macro.*, f1_weighted.*       the same as F1
    training                        what the method left behind; null where a run has no `train/epochs/`
    training.epochs[].epoch         number of the epoch that a row is of; .loss, .dev_loss, .dev_accuracy: at its end
    training.epochs[].clean, .hard, .purified  examples in NoiseAL's subsets, null before the first split
    training.epochs[].<subset>_wrong  share of them whose label (the one trained on) is wrong
    training.epochs[].purified_after_wrong  the same of the purified, with answers in the place of labels
    training.epochs[].asked, .from_ledger  questions of this epoch that were paid, and that the ledger answered
    training.epochs[].answered      examples with an answer so far
    training.epochs[].answered_wrong, .answers_wrong  share of wrong ones among their labels, and among the answers
    training.epochs[].negative_margins, .mean_weight  LANE: examples of negative average margin; mean weight
    training.epochs[].clamp_rate    LANE: share of the last visits where the rival's probability was clamped
    intervals.<name>                95 % Clopper-Pearson interval of a rate above
    confusion.given_final, .given_true  the 20 most frequent pairs of different labels
    cost.amount, .prompt_tokens, .answer_tokens, .queries, .from_ledger   what was paid by this relabelling, and by a method
                                    that asks while it trains
    seconds.<verb>, seconds.total   wall time of the attempts that finished
    counts.*                        examples by split, suspects, labels by what became of them
    measured_on.*                   in words: on what the figures were measured, or why they are null
    notes                           in words: what a reader must know before believing the figures
"""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.config import Config
from rayclean.evaluation import metrics as figures
from rayclean.evaluation import report, training_history
from rayclean.evaluation.counts import UNKNOWN, RunCounts, SuspectRanking, aligned
from rayclean.evaluation.example_rows import changed_rows, rejected_rows
from rayclean.evaluation.headlines import NETWORKS
from rayclean.evaluation.notes import measured_on, notes
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup_values
from rayclean.run import VERBS, Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import VerbNeeds, network_seconds
from rayclean.schema import SPLIT_DEV, SPLIT_TRAIN, LabelSet
from rayclean.tasks import TASKS
from rayclean.verbs.compare_networks import train_and_test

VERSION = 3

NOTHING_ASKED: dict[str, Any] = {
    "asked": 0,
    "from_ledger": 0,
    "tokens": {"prompt": 0, "answer": 0},
    "cost": 0.0,
}
"""What a training without questions paid."""
MAX_HARMED = 10
"""Changes that made a right label wrong, shown with their texts where the truth is known."""


def validate(config: Config, run: Run) -> None:
    """Nothing that other verbs do not check: the options are plain values."""


def measure_labels(config: Config, run: Run) -> tuple[dict[str, Any], RunCounts, SuspectRanking]:
    """Everything but the networks: `metrics` of noise, detection, annotator and confusion after relabel, and what they
    were counted from.
    """
    load, relabel = run.require("load"), run.require("relabel")
    labels = LabelSet.from_json(load.read_text("labels.json"))
    columns = ["example_id", "rank", "given_label", "suggested_label", "chosen_label", "confidence", "decision",
               "candidates", "error"]  # fmt: skip
    suspects = SuspectRanking.read(
        relabel.read_table("annotations", name, columns=columns) for name in relabel.shards("annotations")
    )
    tally = _count(config, run, suspects)
    said = {verb: manifest.metrics for verb in VERBS[:-1] if (manifest := run.manifest(verb)) is not None}
    known = tally.total("known")
    metrics = figures.compute({
        "tally": tally, "truth": tally if known else None, "suspects": suspects,
        "judged": suspects if (suspects.truth >= 0).any() else None,
        "estimated_noise_rate": said["detect"].get("estimated_noise_rate"),
    })  # fmt: skip
    metrics["noise"]["injected"] = _injected(load)
    metrics["annotator"] |= said["relabel"]["annotator"]
    metrics["confusion"] = {
        "given_final": figures.confusions(tally.given_final, labels.names),
        "given_true": figures.confusions(tally.given_true, labels.names) if known else None,
    }
    return metrics, tally, suspects


def needs(config: Config, run: Run) -> VerbNeeds:
    """The training workers where networks are compared; time to run the network."""
    return VerbNeeds(trains=config.evaluate.compare, network=True, seconds=network_seconds(config, run))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Write `metrics.json` and `report.html`; returns the metrics."""
    start = time.monotonic()
    load = run.require("load")
    labels = LabelSet.from_json(load.read_text("labels.json"))
    metrics, tally, suspects = measure_labels(config, run)
    done = {verb: manifest for verb in VERBS[:-1] if (manifest := run.manifest(verb)) is not None}
    said = {verb: manifest.metrics for verb, manifest in done.items()}
    tested = _test(engines, config, run, out, labels, tally)
    for name in ("accuracy", "f1_macro", "f1_weighted"):
        metrics[name] = {kind: tested["scores"].get(kind, {}).get(name) for kind in NETWORKS}
    for kind in NETWORKS:
        hits = tested["scores"].get(kind, {}).get("hits")
        measured = None if hits is None else figures.binomial_interval(hits, tested["examples"])
        metrics["intervals"][f"accuracy.{kind}"] = measured
    trained = training_history.read_history(load, run.require("train"))
    metrics["training"] = None if trained is None else {"epochs": trained.epochs}
    metrics["cost"] = _cost(config, [said["relabel"], said["train"].get("annotator", NOTHING_ASKED)])
    metrics["counts"] = _counts(tally, suspects, said, len(labels), tested["examples"])
    metrics["measured_on"] = measured_on(tally, tested)
    seconds = {verb: manifest.seconds for verb, manifest in done.items()}
    metrics["notes"] = notes(metrics, said, tested)
    seconds["evaluate"] = round(time.monotonic() - start, 3)
    metrics["seconds"] = seconds | {"total": round(sum(seconds.values()), 3)}
    out.write_json(metrics, "metrics.json")
    if config.evaluate.report:
        out.write_text(
            report.render_report(metrics, _material(config, run, tally, suspects, said, trained)),
            "report.html",
        )
    out.remove("compare")
    return metrics


def _material(
    config: Config,
    run: Run,
    tally: RunCounts,
    suspects: SuspectRanking,
    said: dict[str, dict[str, Any]],
    trained: training_history.TrainingHistory | None,
) -> report.ReportInputs:
    load = run.require("load")
    labels = LabelSet.from_json(load.read_text("labels.json"))
    return report.ReportInputs(
        name=config.name,
        config=config.model_dump(mode="json"),
        labels=labels.names,
        tally=tally,
        said=said,
        changes=changed_rows(run, suspects, tally, labels, config.evaluate.top_changes, harmful=False),
        harmed=changed_rows(run, suspects, tally, labels, MAX_HARMED, harmful=True),
        rejected=rejected_rows(load),
        dynamics=trained,
    )


def _count(config: Config, run: Run, suspects: SuspectRanking) -> RunCounts:
    """All examples, a shard at a time."""
    load, detect, relabel = run.require("load"), run.require("detect"), run.require("relabel")
    names = [detector.name for detector in config.detect.detectors]
    own = [f"{kind}_{name}" for name in names for kind in ("quality", "vote")]
    tally = RunCounts(suspects, names)
    for shard in load.shards("examples"):
        ids = load.read_table("examples", shard, columns=["example_id"])["example_id"].to_numpy()
        found = detect.read_table("findings", shard, columns=["example_id", "quality", "suspect", *own])
        found = aligned(found, ids, f"findings/{shard}")
        final = aligned(relabel.read_table("labels", shard), ids, f"labels/{shard}")
        tally.add({
            "example_id": ids,
            "given": final["given_label"].to_numpy(),
            "final": final["final_label"].to_numpy(),
            "truth": _truth(load, shard, ids),
            "split": np.asarray(final["split"].to_pylist(), dtype=np.str_),
            "source": np.asarray(final["source"].to_pylist(), dtype=np.str_),
            **{name: found[name].to_numpy() for name in ("quality", "suspect", *own)},
        })  # fmt: skip
    return tally


def _truth(load: Folder, shard: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """True label of each id, `UNKNOWN` where it is not known."""
    if not load.exists("truth", shard):
        return np.full(len(ids), UNKNOWN, dtype=np.int64)
    table = load.read_table("truth", shard).drop_null()
    return lookup_values(table["example_id"].to_numpy(), table["true_label"].to_numpy(), ids)


def _injected(load: Folder) -> dict[str, Any] | None:
    if not load.exists("truth", "noise.json"):
        return None
    noise = load.read_json("truth", "noise.json")
    return {key: noise[key] for key in ("kind", "requested_rate", "realised_rate", "seed")}


def _test(
    engines: Engines, config: Config, run: Run, out: Folder, labels: LabelSet, tally: RunCounts
) -> dict[str, Any]:
    """Scores of every network on the test examples: on the true labels where known, else on the given ones.

    Returns:
        `scores` (network -> accuracy, f1_macro, f1_weighted, hits), `examples`, `true` (how many of them have a known
        truth), `reason` why there are no scores, `trained_on_true` (examples the network on true labels saw).
    """
    load = run.require("load")
    ids, expected, true = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for shard in load.shards("test"):
        table = load.read_table("test", shard, columns=["example_id", "given_label"])
        own = table["example_id"].to_numpy()
        truth = _truth(load, shard, own)
        given = pc.fill_null(table["given_label"], UNKNOWN).to_numpy().astype(np.int64)
        ids.append(own)
        expected.append(np.where(truth >= 0, truth, given))
        true += int((truth >= 0).sum())
    label = np.concatenate(expected)
    there = label >= 0
    result: dict[str, Any] = {
        "scores": {},
        "examples": int(there.sum()),
        "true": true,
        "reason": None,
        "trained_on_true": 0,
    }
    if not there.any():
        return result | {"reason": "there are no test examples: set dataset.test.share or dataset.test.path"}
    labelled: dict[str, tuple[str | None, str]] = {
        "given": (None, "given_label"),
        "cleaned": (run.require("relabel").url("labels"), "final_label"),
    }
    if config.evaluate.compare and tally.of(SPLIT_TRAIN, "known"):
        result["trained_on_true"] = tally.of(SPLIT_TRAIN, "known")
        labelled["true"] = (_write_true(load, out.sub("compare", "true_labels")), "true_label")
    task = TASKS.build(config.task, labels)
    answers = train_and_test(engines, config, run, out.sub("compare"), labels.names, labelled)
    scores: dict[str, Any] = {}
    for kind, (own, predicted) in answers.items():
        answer = lookup_values(own, predicted, np.concatenate(ids)[there])
        hits = int((answer == label[there]).sum())
        scores[kind] = {**task.metrics(answer, label[there]), "hits": hits}
    return result | {"scores": scores}


def _write_true(load: Folder, folder: Folder) -> str:
    """True labels of all examples, null where not known, for the network that is trained on them; returns the folder."""
    for shard in load.shards("examples"):
        if not folder.exists(shard):
            rows = load.read_table("examples", shard, columns=["example_id"])
            truth = _truth(load, shard, rows["example_id"].to_numpy())
            column = pa.array(truth, pa.int32(), mask=truth < 0)
            folder.write_table(rows.append_column("true_label", column), shard)
    return folder.url()


def _cost(config: Config, paid: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of what several verbs paid."""
    priced = bool(config.relabel.price_prompt or config.relabel.price_answer)
    return {
        "amount": sum(one["cost"] for one in paid) if priced else None,
        "prompt_tokens": sum(one["tokens"]["prompt"] for one in paid),
        "answer_tokens": sum(one["tokens"]["answer"] for one in paid),
        "queries": sum(one["asked"] for one in paid),
        "from_ledger": sum(one["from_ledger"] for one in paid),
    }


def _counts(
    tally: RunCounts, suspects: SuspectRanking, said: dict[str, Any], classes: int, tested: int
) -> dict[str, int]:
    names = ("examples", "changed", "suspects", "known", "wrong_given", "wrong_final", "harmed", "repaired")
    return {
        **{name: tally.total(name) for name in names},
        "classes": classes,
        "train": tally.of(SPLIT_TRAIN, "examples"),
        "dev": tally.of(SPLIT_DEV, "examples"),
        "test": said["load"]["test"],
        "tested": tested,
        "rejected": sum(said["load"]["rejected"].values()),
        "asked": int((~suspects.decided("unasked")).sum()),
        **{name: int(suspects.decided(name).sum()) for name in ("kept", "abstained", "error", "unasked")},
        "reverted": len(tally.reverted),
    }
