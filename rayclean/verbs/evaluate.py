"""The verb evaluate, which measures against the known truth, compares networks, and writes `metrics.json` and
`report.html`.

The truth (`load/truth/`) is opened here and by the simulated annotator, nowhere else. Keys of `metrics.json`
(null: unknown or undefined):

    noise.given, noise.final        share of wrong labels before and after, over examples of known truth
    noise.by_split                  these shares and the number of examples, per split
    noise.estimated                 share of wrong labels by confident learning, without any truth
    noise.truth_outside             true labels that are none of the classes, and the most frequent ones; null without any
    noise.injected                  kind, requested, expected and realised rate of deliberately injected noise
    harm                            correct labels made wrong, as a share of the correct labels
    repaired                        wrong labels made right, as a share of the wrong labels
    detection.roc_auc               ROC AUC of the combined quality for "the given label is wrong"
    detection.average_precision     average precision of the combined quality for the same
    detection.precision_at_budget   share of the suspects whose label is wrong
    detection.recall_at_budget      share of the wrong labels that are suspects
    detection.precision_at_10       share of wrong labels among the 10 % of lowest quality
    detection.share                 suspects, as a share of the examples
    detection.detectors.<name>      these figures for each detector (.precision_at_budget: of as many lowest
                                    qualities as there are suspects), and its votes, with their precision and
                                    recall
    annotator.accuracy              correct answers, over answered suspects whose truth is a candidate
    annotator.accuracy_all          correct answers, over all answered suspects
    annotator.truth_among_candidates  share of the suspects whose truth is one of the candidates
    annotator.ece, .reliability     calibration of its confidence, in total and by bins
    annotator.outcomes, .errors     suspects by outcome; failed queries by kind
    annotator.name, .model          annotator and its model
    accuracy.given/.cleaned/.true   test accuracy of a network trained in the same way on given, cleaned and
                                    true labels; test examples whose text is in the training data do not count
    accuracy_all.*                  the same on all test examples
    accuracy.trained, .last         test accuracy of the network of `train`, by the configured method, at its
                                    best and at its last epoch
    accuracy_difference             accuracy.cleaned less accuracy.given on the same examples, with its 95 % interval, and
                                    whether that excludes 0; null where they were not compared
    f1_macro.*, f1_weighted.*       F1 of the same networks
    training                        values per epoch of the method; null if a run has no `train/epochs/`
    training.epochs[].epoch         number of the epoch
    training.epochs[].loss, .dev_loss, .dev_accuracy  losses at its end, and accuracy on the given labels of the
                                    development examples
    training.epochs[].dev_loss_final, .dev_accuracy_final  the same on the final labels of those that are no
                                    unresolved suspects; null where the epoch was chosen by given labels
    training.epochs[].asked, .from_ledger  queries of this epoch that were paid for, and those of the ledger
    training.epochs[].<subset>      examples in a subset of the method, null before the first split
    training.epochs[].<subset>_wrong  share of them whose label (the one trained on) is wrong
    training.epochs[].<subset>_after_wrong  this share with answers in place of labels, if the method replaces
                                    labels
    training.epochs[].answered      examples with an answer so far, of a method that keeps answers
    training.epochs[].answered_wrong, .answers_wrong  share of wrong ones among their labels, and among the
                                    answers
    training.epochs[].<figure>      a figure of the method (`train/measures.json` lists figures and subsets)
    intervals.<name>                95 % Clopper-Pearson interval of a rate above
    classes[]                       of every class: labels before and after, changed out of it and into it, and where the
                                    truth is known right labels made wrong and wrong ones repaired
    expected_wrong                  number of changes that are wrong by the run's own probabilities, with 95 % limits
    proposals                       number of changes by model and annotator alone, which a certificate is about
    audit                           what an auditor's answers say of all labels, with intervals (null: not audited)
    certificate                     the certificate of the changed labels, and whether it is void (null: none)
    confusion.given_final, .given_true  the 20 most frequent pairs of different labels
    cost.amount, .currency, .prompt_tokens, .answer_tokens, .queries, .from_ledger   cost of this relabelling,
                                    and of a method that asks during training
    seconds.<verb>, seconds.total   wall time of the attempts that finished
    units                           in words, what labels are counted by: examples, or parts of them
    counts.*                        examples by split, suspects, labels by outcome
    measured_on.*                   in words: the examples of the measurements, or the reason for nulls
    notes                           in words: caveats about the figures
    alarms                          in words: figures that can hardly be true, and the likely cause
"""

import time
from typing import Any

from rayclean.annotations import DECISIONS, SuspectRanking
from rayclean.annotators import asked_annotators
from rayclean.annotators.decisions import changed_by_model_alone
from rayclean.annotators.final_labels import EXAMPLE_LABELS
from rayclean.annotators.query_budget import Budget, common_currency
from rayclean.audits.certificate import read_certificate
from rayclean.audits.rates import audit_figures
from rayclean.config import Config
from rayclean.evaluation import metrics as figures
from rayclean.evaluation import report, training_history
from rayclean.evaluation.alarms import alarms
from rayclean.evaluation.counts import RunCounts
from rayclean.evaluation.example_rows import changed_rows, disagreement_rows, rejected_rows
from rayclean.evaluation.headlines import NETWORKS
from rayclean.evaluation.label_metrics import measure_labels, true_labels
from rayclean.evaluation.network_scores import score_answers, shared_test_ids
from rayclean.evaluation.notes import measured_on, notes
from rayclean.folder import Folder
from rayclean.run import VERBS, Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import VerbNeeds
from rayclean.schema import SPLIT_DEV, SPLIT_TRAIN, LabelSet
from rayclean.tasks import TASKS
from rayclean.tasks.base import Task
from rayclean.verbs.compare_networks import comparison_needs, train_and_test

VERSION = 7

NOTHING_ASKED: dict[str, Any] = {
    "asked": 0,
    "from_ledger": 0,
    "tokens": {"prompt": 0, "answer": 0},
    "cost": 0.0,
    "currency": None,
}
"""Cost of a training without queries."""
MAX_HARMED = 10
"""Most changes of a correct label to a wrong one that the report shows with their texts."""


def validate(config: Config, run: Run) -> None:
    """Check nothing, since the options are plain values and other verbs check the rest."""


def needs(config: Config, run: Run) -> VerbNeeds:
    """Require the training workers if networks are compared, and estimate the time to run the network."""
    return comparison_needs(config, run)


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Write `metrics.json` and `report.html`; returns the metrics."""
    start = time.monotonic()
    load = run.require("load")
    task = TASKS.build(config.task, LabelSet.from_json(load.read_text("labels.json")))
    manifests = {verb: manifest for verb in VERBS[:-1] if (manifest := run.manifest(verb)) is not None}
    verb_metrics = {verb: manifest.metrics for verb, manifest in manifests.items()}
    metrics, counts, suspects = measure_labels(config, run)
    tested = _test(engines, config, run, out, task, counts)
    scores = {name: tested["scores"].get(name, {}) for name in NETWORKS}
    for figure in ("accuracy", "f1_macro", "f1_weighted"):
        metrics[figure] = {name: score.get(figure) for name, score in scores.items()}
    for name, score in scores.items():
        interval = figures.binomial_interval(score["hits"], tested["examples"]) if score else None
        metrics["intervals"][f"accuracy.{name}"] = interval
    metrics["accuracy_all"] = {name: tested["scores_all"].get(name, {}).get("accuracy") for name in NETWORKS}
    metrics["accuracy_difference"] = tested["difference"]
    truth = load if task.units_are_examples else None
    history = training_history.read_history(truth, run.require("train"))
    metrics["training"] = None if history is None else {"epochs": history.epochs}
    metrics["cost"] = _cost(
        config, [verb_metrics["relabel"], verb_metrics["train"].get("annotator", NOTHING_ASKED)]
    )
    metrics["counts"] = _counts(counts, suspects, verb_metrics["load"], len(task.labels), tested)
    metrics["units"] = task.units_are_called
    metrics["judged"] = verb_metrics["relabel"]["judged"]
    metrics["model_alone"] = _model_alone(config, counts, suspects, task)
    metrics["expected_wrong"] = verb_metrics["relabel"]["audit"]["expected_wrong"]
    metrics["proposals"] = verb_metrics["relabel"]["audit"]["proposed"]
    metrics["audit"] = audit_figures(run, config.audit, task)
    metrics["certificate"] = read_certificate(config, run)
    metrics["measured_on"] = measured_on(counts, tested, task.units_are_called)
    metrics["notes"] = notes(metrics, verb_metrics, tested)
    metrics["alarms"] = alarms(metrics["classes"], verb_metrics)
    seconds = {verb: manifest.seconds for verb, manifest in manifests.items()}
    seconds["evaluate"] = round(time.monotonic() - start, 3)
    metrics["seconds"] = seconds | {"total": round(sum(seconds.values()), 3)}
    out.write_json(metrics, "metrics.json")
    if config.evaluate.report:
        inputs = report.ReportInputs(
            name=config.name,
            config=config.model_dump(mode="json"),
            labels=task.answers.names,
            counts=counts,
            verb_metrics=verb_metrics,
            changes=changed_rows(run, suspects, counts, task, config.evaluate.top_changes, harmful=False),
            harmed=changed_rows(run, suspects, counts, task, MAX_HARMED, harmful=True),
            disagreements=disagreement_rows(run, task, config.evaluate.top_changes),
            rejected=rejected_rows(load),
            history=history,
        )
        out.write_text(report.render_report(metrics, inputs), "report.html")
    out.remove("compare")
    return metrics


def _test(
    engines: Engines, config: Config, run: Run, out: Folder, task: Task, counts: RunCounts
) -> dict[str, Any]:
    """Score every network on the test examples, against the true labels where known, else against the given
    ones. Examples whose text is in the training data count in `scores_all` alone.

    Returns: `scores` (network -> accuracy, f1_macro, f1_weighted, hits), `scores_all`, `examples` (without those whose text is
        in the training data), `shared` (these), `true` (how many of the former have a known truth), `reason` why there are no
        scores, `trained_on_true` (labels that the network on true labels saw), `difference` (accuracy on cleaned less that on
        given labels, with its interval).
    """
    load = run.require("load")
    expected: dict[int, Any] = {}
    with_truth: set[int] = set()
    for shard in load.shards("test"):
        table = load.read_table("test", shard, columns=["example_id", "given_label"])
        truth = true_labels(load, shard, table["example_id"]).to_pylist()
        labels = zip(table["example_id"].to_pylist(), table["given_label"].to_pylist(), truth, strict=True)
        for key, given, known in labels:
            expected[key] = given if known is None else known
            with_truth |= {key} if known is not None else set()
    expected = {key: label for key, label in expected.items() if label is not None}
    shared = expected.keys() & shared_test_ids(load)
    unseen = {key: label for key, label in expected.items() if key not in shared}
    result: dict[str, Any] = {
        "scores": {},
        "scores_all": {},
        "examples": len(unseen),
        "shared": len(shared),
        "true": len(with_truth & unseen.keys()),
        "reason": None,
        "trained_on_true": 0,
        "difference": None,
    }
    if not expected:
        return result | {"reason": "there are no test examples: set dataset.test.share or dataset.test.path"}
    if not unseen:
        result["reason"] = (
            f"the texts of all {len(shared):,} test examples are in the training data: set dataset.test.share, or remove them "
            "from one of the two"
        )
    relabelled = run.require("relabel").url("labels" if task.units_are_examples else EXAMPLE_LABELS)
    labelled: dict[str, tuple[str | None, str]] = {
        "given": (None, "given_label"),
        "cleaned": (relabelled, "final_label"),
    }
    if config.evaluate.compare and counts.of(SPLIT_TRAIN, "known"):
        result["trained_on_true"] = counts.of(SPLIT_TRAIN, "known")
        labelled["true"] = (_write_true(load, out.sub("compare", "true_labels")), "true_label")
    answers = train_and_test(engines, config, run, out.sub("compare"), task, labelled)
    scores, difference = score_answers(answers, unseen, task)
    scores_all, _ = score_answers(answers, expected, task)
    return result | {"scores": scores, "scores_all": scores_all, "difference": difference}


def _write_true(load: Folder, folder: Folder) -> str:
    """Write the true labels of all examples, null if unknown, for the network that is trained on them.

    Returns:
        The folder of the shards.
    """
    for shard in load.shards("examples"):
        if not folder.exists(shard):
            rows = load.read_table("examples", shard, columns=["example_id"])
            truth = true_labels(load, shard, rows["example_id"])
            folder.write_table(rows.append_column("true_label", truth), shard)
    return folder.url()


def _model_alone(config: Config, counts: RunCounts, suspects: SuspectRanking, task: Task) -> dict[str, Any]:
    """What the labels would be if nobody were asked: the row that an annotator has to beat."""
    values = {"unit_id": suspects.unit_id, "given_label": suspects.given, "suggested_label": suspects.rival,
              "log_odds": suspects.log_odds}  # fmt: skip
    accept, answers = config.relabel.accept, len(task.answers)
    changed = changed_by_model_alone(values, accept, answers, config.seed, decides_alone=task.decides_alone)
    known = changed & (suspects.truth >= 0)
    repaired = int((known & (suspects.truth == suspects.rival)).sum())
    harmed = int((known & (suspects.truth == suspects.given)).sum())
    wrong, total = counts.total("wrong_given"), counts.total("known")
    return {
        "changed": int(changed.sum()),
        "noise": figures.rate(wrong - repaired + harmed, total),
        "repaired": figures.rate(repaired, wrong),
        "harm": figures.rate(harmed, total - wrong),
    }


def _cost(config: Config, paid: list[dict[str, Any]]) -> dict[str, Any]:
    """The total cost of the annotators of several verbs."""
    budgets = [Budget.of(annotator) for annotator in asked_annotators(config)]
    priced = any(budget.price_prompt or budget.price_answer for budget in budgets)
    return {
        "amount": sum(each["cost"] for each in paid) if priced else None,
        "currency": common_currency(config),
        "prompt_tokens": sum(each["tokens"]["prompt"] for each in paid),
        "answer_tokens": sum(each["tokens"]["answer"] for each in paid),
        "queries": sum(each["asked"] for each in paid),
        "from_ledger": sum(each["from_ledger"] for each in paid),
    }


def _counts(
    counts: RunCounts,
    suspects: SuspectRanking,
    load_metrics: dict[str, Any],
    classes: int,
    tested: dict[str, Any],
) -> dict[str, int]:
    names = ("examples", "changed", "suspects", "known", "wrong_given", "wrong_final", "harmed", "repaired")
    return {
        **{name: counts.total(name) for name in names},
        "classes": classes,
        "train": counts.of(SPLIT_TRAIN, "examples"),
        "dev": counts.of(SPLIT_DEV, "examples"),
        "test": load_metrics["test"],
        "tested": tested["examples"],
        "test_shared": tested["shared"],
        "rejected": sum(load_metrics["rejected"].values()),
        "asked": int(((suspects.confidence >= 0) | suspects.decided("error")).sum()),  # NaN: no answer
        **{name: int(suspects.decided(name).sum()) for name in DECISIONS if name != "changed"},
        "reverted": len(counts.reverted),
    }
