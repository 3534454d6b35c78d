"""The verb relabel, which asks annotators about every suspect, decides by calibrated probability, and writes
the final labels.

    detect/findings + load/examples + predict/features
      -> queries/      candidates and demonstrations of every suspect, by rank
      -> answers/      raw answers, from the ledger or new                       (removed at the end)
      -> annotations/  the decision on every suspect                             (annotators/decisions.py)
                       with what auditors said, if anybody did                   (audits/settle.py)
      -> labels/       the label of every example: given labels + accepted changes + audited labels - reverts

Several annotators are asked in order, each about the suspects that earlier ones left undecided. Answers are
kept in `<run>/ledger/`, so a change of acceptance or calibration sends no query, and a restart repeats none.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rayclean.annotators import build_annotator, relabel_annotators
from rayclean.annotators.base import Annotator
from rayclean.annotators.decisions import DecidedStage, decision_counts, write_decisions
from rayclean.annotators.demonstrations import DemonstrationSources
from rayclean.annotators.final_labels import lost_reverts, write_labels
from rayclean.annotators.query_budget import Budget, common_currency
from rayclean.annotators.query_builder import suspects_of
from rayclean.annotators.reverts import Change
from rayclean.audits.certificate import check_certify
from rayclean.audits.settle import settle
from rayclean.config import Config
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.functional.suspect_budget import suspects_allowed
from rayclean.functional.worth import LEAST_CONTROLS
from rayclean.run import Run
from rayclean.runtime.engines import IN_PROCESS, Engines
from rayclean.runtime.needs import SECONDS_PER_EXAMPLE, VerbNeeds, loaded_examples
from rayclean.runtime.server_checks import validate_server
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS
from rayclean.verbs.relabel_stage import AnnotatorStage

logger = logging.getLogger(__name__)

VERSION = 12

_ABSTAINS = (
    "{name} decides by the labels of the nearest examples, but the candidates here are texts in which spans are marked, which no "
    "other example has: it abstained from every question. Have a language model answer (annotator.name = 'served' or 'openai'), "
    "or a person (rayclean audit)"
)
_NAMED = 5
"""Reverts without effect that a warning names."""


def validate(config: Config, run: Run) -> None:
    """Check options, prices, address, key and server settings of every annotator, without connecting, and whether a
    certificate is possible (where the number of examples is not known yet, `run` checks it before it asks).

    Raises:
        ConfigError: they are invalid.
    """
    budget, examples = config.detect.budget, loaded_examples(run)
    check_certify(config, suspects_allowed(budget, examples or (budget if isinstance(budget, int) else 0)))
    common_currency(config)
    for plugin in relabel_annotators(config):
        annotator = build_annotator(config, (), plugin)
        annotator.check()
        _check_controls(config, annotator)
        validate_server(annotator)


def needs(config: Config, run: Run) -> VerbNeeds:
    """Require the annotators' language models, and estimate the time to build and answer the queries."""
    annotators = [build_annotator(config, (), plugin) for plugin in relabel_annotators(config)]
    servers = tuple(server for each in annotators if (server := each.server()) is not None)
    return VerbNeeds(servers=servers, seconds=SECONDS_PER_EXAMPLE * loaded_examples(run))


def run(config: Config, run: Run, out: Folder, engines: Engines = IN_PROCESS) -> dict[str, Any]:
    """Ask, decide and write the labels; returns the verb's metrics."""
    load, detect = run.require("load"), run.require("detect")
    labels = LabelSet.from_json(load.read_text("labels.json")).described(
        config.dataset.words, config.dataset.definitions
    )
    plugins = relabel_annotators(config)
    task = TASKS.build(config.task, labels)
    answers = tuple(task.answers)
    annotators = [build_annotator(config, answers, plugin, task) for plugin in plugins]
    for annotator in annotators:
        annotator.check()
    sources = DemonstrationSources(load.url(), run.require("predict").url(), detect.url(), task)
    suspects = {shard: len(suspects_of(detect.url(), shard)) for shard in load.shards("examples")}
    total, start = sum(suspects.values()), time.monotonic()
    check_certify(config, total)
    for part in ("annotations", "beyond"):
        out.remove(part)  # decisions of an earlier attempt are repeated from the same answers
    decided: list[DecidedStage] = []
    paid: list[dict[str, Any]] = []
    fresh, only, exhausted = 0, None, False
    for number, (plugin, annotator) in enumerate(zip(plugins, annotators, strict=True)):
        stage = AnnotatorStage(config, number, annotator, task, sources, run, out)
        before = stage.spent.queries
        stage.ask(engines, suspects, only)
        fresh += stage.spent.queries - before
        exhausted |= not Budget.of(annotator).allows(stage.spent.queries, stage.spent)
        last = number == len(plugins) - 1
        decided.append(
            write_decisions(
                out,
                number,
                plugin.name,
                len(answers),
                stage.calibration,
                config.relabel.accept,
                config.seed,
                suspects=total,
                asks=annotator.asks,
                last=last,
                decides_alone=task.decides_alone,
            )
        )
        paid.append({"name": plugin.name, **Budget.of(annotator).paid(stage.spent)})
        only = decided[-1].undecided
    seconds = time.monotonic() - start
    settled = settle(config, run, out, task)
    counts = decision_counts(decided) | settled["decisions"]
    label_sources = write_labels(run, out, task)
    warnings = _lost(lost_reverts(run, task)) + settled.pop("warnings")
    if not task.candidates_are_labels:
        warnings += [
            _ABSTAINS.format(name=each["name"])
            for each, annotator in zip(paid, annotators, strict=True)
            if not annotator.chooses_texts
        ]
    out.remove("answers")
    believed = paid[-1] | decided[-1].judged
    advice = _advice(counts, total, exhausted, believed, config.relabel.controls)
    if advice is not None:
        logger.warning("relabel: %s", advice)
    worth = [
        Budget.of(each).cost(done.prompt_tokens, done.answer_tokens)
        for each, done in zip(annotators, decided, strict=True)
    ]
    return {
        "suspects": total,
        **{name: value for name, value in counts.items() if name != "model"},
        "reverted": label_sources["reverted"],
        "labels": label_sources,
        "annotator": {"name": ", then ".join(each.name for each in plugins), "model": counts["model"]},
        "audit": {name: value for name, value in settled.items() if name != "decisions"},
        "judged": [{"name": each["name"], **done.judged} for each, done in zip(paid, decided, strict=True)],
        **({"annotators": paid} if len(paid) > 1 else {}),
        "asked": sum(each["asked"] for each in paid),
        "tokens": {kind: sum(each["tokens"][kind] for each in paid) for kind in ("prompt", "answer")},
        "cost": sum(each["cost"] for each in paid),
        "currency": common_currency(config),
        # The tokens of all answers, including those paid for by earlier runs.
        "worth": {
            "tokens": sum(each.prompt_tokens + each.answer_tokens for each in decided),
            "cost": sum(worth),
        },
        "seconds": round(seconds, 3),
        "queries_per_second": round(fresh / seconds, 3) if fresh and seconds > 0 else None,  # in this attempt
        "complete": counts["unasked"] == 0,
        "go_on": advice,
        "warnings": warnings,
    }


def _check_controls(config: Config, annotator: Annotator) -> None:
    most = annotator.config.max_queries
    if not (annotator.asks and annotator.independent and config.relabel.controls >= LEAST_CONTROLS and most):
        return
    if most // 2 < LEAST_CONTROLS:
        raise ConfigError(
            f"annotator.max_queries = {most} leaves {most // 2} control questions, half of the budget; with fewer than "
            f"{LEAST_CONTROLS} nobody can be shown to be better than chance, and answers would be paid for nothing: set "
            f'max_queries to at least {2 * LEAST_CONTROLS}, or annotator = {{name = "posterior"}}, which asks nobody'
        )


def _lost(reverts: Sequence[Change]) -> list[str]:
    """A warning that names the reverts without effect."""
    if not reverts:
        return []
    named = "; ".join(change.described for change in reverts[:_NAMED])
    more = f"; and {len(reverts) - _NAMED} more" if len(reverts) > _NAMED else ""
    return [
        f"{len(reverts)} reverts have no effect, since their text with this given label is no longer in the data (or not under "
        f"this key): {named}{more}"
    ]


def _advice(
    decided: dict[str, Any], total: int, exhausted: bool, judged: Mapping[str, Any], controls: int
) -> str | None:
    """Advice for suspects that were not asked about, have no answer yet, or whose queries failed; None if there are none.

    Args:
        decided: numbers of decisions by kind.
        total: number of suspects.
        exhausted: whether an annotator's budget is spent.
        judged: the last annotator's name, and what its control questions showed.
        controls: number of control questions in the config.
    """
    asked, right = (judged["controls"][key] for key in ("asked", "right"))
    if decided["unasked"] and exhausted and asked and not judged["above_chance"]:
        more = (
            f"; or, if you know that it is good, raise its budget so that it gets more of the {controls} control questions"
            if asked < controls and right > asked / 2
            else ""
        )
        return (
            f"the budget left {decided['unasked']} of {total} suspects unasked, but {judged['name']} was right on {right} of "
            f"{asked} control questions, which is not surely better than chance, so that its answers change no label: choose "
            f"another annotator (annotator.name, annotator.model), or let a person judge (`rayclean audit`){more}"
        )
    if decided["unasked"] and exhausted:
        return (
            f"the budget left {decided['unasked']} of {total} suspects unasked: raise annotator.max_queries, "
            "max_tokens or max_cost and run the same command; what was answered is in the ledger "
            "and costs nothing again"
        )
    if decided["unasked"]:
        return (
            f"{decided['unasked']} of {total} suspects have no answer yet and keep their given label: `rayclean relabel --again` "
            "asks for those again, then `rayclean clean` goes on with what follows"
        )
    if decided["error"]:
        return (
            f"{decided['error']} queries failed and kept their given label; `rayclean relabel --again` asks "
            "those again (the others are in the ledger), then `rayclean clean` goes on with what follows"
        )
    return None
