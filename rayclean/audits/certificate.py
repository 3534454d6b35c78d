"""The certificate: of the labels that model and annotator would change, how many may change with what certainty.

The proposals of a run are the changes that nobody but model and annotator decided, most probable first. Answers about some
of them, asked for in an order that the seed fixes, certify that at least `target` of the first so many are right; a
statement of this kind is false with probability at most `delta` (`functional.certificate`). It speaks of the auditor's
judgement, of the whole set and not of each class.

`<run>/audit/certificate.json` says what it rests on: data, model, detection, annotator with its prompts, and the rules by
which was decided. Any change of these voids it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayclean.annotators.reverts import has_reverts, reverts_fingerprint
from rayclean.audits.answers import AuditAnswers
from rayclean.audits.draw import FOLDER
from rayclean.audits.units import DoubtedUnit
from rayclean.config import CertifyConfig, Config
from rayclean.errors import ConfigError
from rayclean.fingerprints import fingerprint
from rayclean.functional.certificate import (
    NO_ANSWER,
    RIGHT,
    WRONG,
    Certified,
    audit_permutation,
    certified_size,
    confidence_order,
    enough_answers,
    fewest_answers,
    next_questions,
)
from rayclean.functional.types import Bools, Doubles, Ids, Ints
from rayclean.run import Run
from rayclean.verb_fingerprints import check_plugins

CERTIFICATE_FILE = "certificate.json"
FORM_QUESTIONS = 50
"""Questions of one form: a wrong answer makes other questions necessary, so more at once would be asked in vain."""
MOST_SETS = 20
_MADE_FROM = {
    "load": "the data",
    "predict": "the model",
    "detect": "the detection",
    "annotator": "the annotator or its prompt",
    "rules": "the calibration or the rules of the decision",
}
"""What a certificate rests on, in words."""
_ANSWERED = {
    "proposals": "what an audit says of the suspects",
    "answers": "the answers of auditors",
    "reverts": "which changes users have undone",
}
"""Also this, of which the first that differs is named, and only where nothing else does: the rest follows from it."""


@dataclass(frozen=True)
class Proposals:
    """The N changes that model and annotator would make, in the order of their units' ids."""

    unit_id: Ids
    probability: Doubles
    """[N] that the suggested label is right."""

    @property
    def digest(self) -> str:
        """Hash of the set and its order: answers certify no other."""
        return fingerprint(self.unit_id[confidence_order(self.probability, self.unit_id)].tolist())


def certified_proposals(
    proposals: Proposals, answers: Ints, config: CertifyConfig, seed: int
) -> tuple[Certified, Bools]:
    """What the answers certify, and whether each proposal [N] is in the certified set.

    Args:
        proposals: N proposals.
        answers: [N] of `proposal_answers`.
        config: what is to be shown.
        seed: of the run, which fixes the order of the questions.

    Raises:
        ConfigError: the config allows fewer answers than any set needs.
    """
    if not len(proposals.unit_id):
        return Certified(0, np.zeros(0, dtype=np.int64), 0, "all"), np.zeros(0, dtype=np.bool_)
    _check_labels(len(proposals.unit_id), config)
    order, permutation = _orders(proposals, seed)
    found = certified_size(answers, order, permutation, config.target, config.delta, config.labels, MOST_SETS)
    inside = np.zeros(len(order), dtype=np.bool_)
    inside[order[: found.accepted]] = True
    return found, inside


def questions(proposals: Proposals, answers: Ints, config: CertifyConfig, seed: int) -> Ids:
    """Ids of the units of the next form, in the order in which they are needed; none where no answer helps any more."""
    if not len(proposals.unit_id):
        return proposals.unit_id
    _check_labels(len(proposals.unit_id), config)
    order, permutation = _orders(proposals, seed)
    rows = next_questions(answers, order, permutation, config.target, config.delta, config.labels, MOST_SETS)
    return proposals.unit_id[rows[:FORM_QUESTIONS]]


def proposal_answers(proposals: Proposals, answers: AuditAnswers, units: Mapping[int, DoubtedUnit]) -> Ints:
    """Whether each proposal is right [N] of RIGHT, WRONG, NO_ANSWER. One of which the auditor is unsure, or auditors
    disagree, counts as wrong: nobody has clearly said that it is right.
    """
    found = np.full(len(proposals.unit_id), NO_ANSWER, dtype=np.int8)
    for row, unit_id in enumerate(proposals.unit_id.tolist()):
        if unit_id in answers.conflicts:
            found[row] = WRONG
        elif answer := answers.settled.get(unit_id):
            found[row] = RIGHT if answer.value == units[unit_id].suggested.value else WRONG
    return found


def answers_digest(answers: AuditAnswers) -> str:
    """Hash of all answers that count: a certificate holds for no others."""
    settled = sorted([unit_id, *answer.content] for unit_id, answer in answers.settled.items())
    return fingerprint(settled, sorted(answers.conflicts))


def check_certify(config: Config, suspects: int) -> None:
    """Refuse a number of answers that might certify nothing, before an annotator or an auditor is asked.

    Args:
        config: of the run.
        suspects: the largest number of labels that may change.

    Raises:
        ConfigError: `relabel.certify.labels` is less than some number of changes up to that needs.
    """
    rule = config.relabel.certify
    if rule is None:
        return
    enough = enough_answers(suspects, rule.target, rule.delta, MOST_SETS)
    if rule.labels < enough:
        raise ConfigError(
            f"relabel.certify.labels = {rule.labels} is too few: with target {rule.target:g} and delta {rule.delta:g}, a "
            f"certificate of up to {suspects:,} changed labels (detect.budget) may need {enough} answers; raise "
            f"relabel.certify.labels to at least {enough}, or lower relabel.certify.target"
        )


def write_certificate(config: Config, run: Run, statement: dict[str, Any]) -> None:
    """Keep a certificate with what it rests on."""
    run.write_json({**statement, "made_from": _made_from(config, run)}, FOLDER, CERTIFICATE_FILE)


def read_certificate(config: Config, run: Run) -> dict[str, Any] | None:
    """The certificate of a run with `void`: what has changed since in words, None where it holds; None without one."""
    if not run.exists(FOLDER, CERTIFICATE_FILE):
        return None
    found: dict[str, Any] = run.read_json(FOLDER, CERTIFICATE_FILE)
    before, now, rule = found["made_from"], _made_from(config, run), config.relabel.certify
    changed = [words for part, words in _MADE_FROM.items() if before[part] != now[part]]
    if not changed:
        changed = [words for part, words in _ANSWERED.items() if before.get(part) != now[part]][:1]
    if rule is not None and (rule.target, rule.delta) != (found["target"], found["delta"]):
        changed.append("relabel.certify")
    return {**found, "restricts": rule is not None, "void": ", ".join(changed) or None}


def _made_from(config: Config, run: Run) -> dict[str, Any]:
    """A hash of every part of `_MADE_FROM` and `_ANSWERED`; what is to be certified is no part."""
    manifests = {verb: run.manifest(verb) for verb in ("load", "predict", "detect", "relabel")}
    found = {verb: each and each.fingerprint for verb, each in manifests.items() if verb != "relabel"}
    rules = config.relabel.identity()
    asked = rules.pop("demonstrations"), rules.pop("selector"), rules.pop("candidates")
    for name in ("annotators", "certify", "max_harm", "beyond"):
        del rules[name]
    words = config.dataset.words, config.dataset.definitions
    relabel = manifests["relabel"]
    return found | {
        "annotator": fingerprint(check_plugins(config)["annotators"], asked, words),
        "rules": fingerprint(rules, config.seed),
        **{part: relabel and relabel.metrics["audit"].get(part) for part in ("proposals", "answers")},
        "reverts": reverts_fingerprint(run) if has_reverts(run) else None,
    }


def _orders(proposals: Proposals, seed: int) -> tuple[Ints, Ints]:
    return confidence_order(proposals.probability, proposals.unit_id), audit_permutation(
        proposals.unit_id, seed
    )


def _check_labels(count: int, config: CertifyConfig) -> None:
    least = fewest_answers(count, config.target, config.delta, MOST_SETS)
    if config.labels < least:
        raise ConfigError(
            f"relabel.certify.labels = {config.labels} is too few: a certificate of {count:,} changed labels with target "
            f"{config.target:g} and delta {config.delta:g} needs at least {least} answers; raise "
            "relabel.certify.labels, or lower relabel.certify.target"
        )
