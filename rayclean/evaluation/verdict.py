"""The verdict: what a reader must know first, in sentences; the same on the page and in the terminal.

Which case it is (random-like noise, systematic noise, not known by an audit's few answers, certified or not, not audited), how
many labels changed and were referred, what harm is to be expected, and what is certified or what a certificate would take.
"""

import os
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rayclean.config import CertifyConfig
from rayclean.evaluation.formatting import format_percent, referred_to_person
from rayclean.functional.audit_rates import is_random_like
from rayclean.functional.certificate import fewest_answers, nested_sizes
from rayclean.functional.sequential_test import needed_answers

Case = Literal["random-like", "systematic", "too few answers", "certified", "not certified", "not audited"]
SECONDS_PER_ANSWER = 30
"""What a person needs for one question, roughly."""
_TITLES: dict[Case, str] = {
    "random-like": "Random-like noise: detection sees it",
    "systematic": "Systematic noise: labels are wrong in ways that detection does not see",
    "too few answers": "Audited, with too few answers to tell whether detection sees the noise",
    "certified": "Certified: the changes were judged by {by}",
    "not certified": "Not certified: answers about {audited} changes do not show that enough of them are right",
    "not audited": "Not audited: nobody has checked these labels",
}
_HELP = (
    "What helps: LLM disagreement (relabel.beyond), a better annotator, more suspects, rules or instructions of the "
    "labelling to mend, an audit of the classes in question. Cleaning alone does not repair what the model has learnt as a rule."
)


@dataclass(frozen=True)
class RunVerdict:
    """The first screen of the report."""

    case: Case
    title: str
    sentences: list[str]
    """The gravest first."""
    certificate: str
    """What is certified, or what it would take."""


def run_verdict(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> RunVerdict:
    """The verdict on a run.

    Args:
        metrics: the content of `metrics.json`.
        config: the resolved config as plain values.
    """
    audit = metrics["audit"]
    certificate = metrics["certificate"]
    holds = certificate is not None and certificate["void"] is None and certificate["accepted"] > 0
    fails = (
        certificate is not None and certificate["void"] is None and not holds and certificate["audited"] > 0
    )
    case: Case = "not audited" if audit is None else _audited_case(audit)
    if case in ("not audited", "too few answers"):
        case = "certified" if holds else "not certified" if fails else case
    sentences = [_changes(metrics)]
    if audit is not None:
        sentences += _audited(audit, config)
    elif holds or fails:
        sentences += [f"{_offer(config)} says how many of the labels that nobody doubted are wrong."]
    else:
        unknown = (
            "Whether the changes are right and how many wrong labels nobody doubted"
            if metrics["counts"]["changed"]
            else "How many of the labels are wrong"
        )
        sentences += [
            *_expected(metrics["expected_wrong"]),
            f"{unknown} is not known: the model's own scale cannot say it. {_offer(config)} says it with intervals, and decides "
            "these labels better.",
        ]
    return RunVerdict(case, _title(case, certificate), sentences, _certified(metrics, config))


def _title(case: Case, certificate: Mapping[str, Any] | None) -> str:
    if certificate is None or case not in ("certified", "not certified"):
        return _TITLES[case]
    by, accepted, proposals = (certificate[name] for name in ("auditors", "accepted", "proposals"))
    if case == "certified" and accepted < proposals and not certificate["restricts"]:
        return f"Certified in part: {accepted:,} of {proposals:,} changes"
    return _TITLES[case].format(by=", ".join(by), audited=f"{certificate['audited']:,}")


def case_sentence(audit: Mapping[str, Any]) -> str:
    """Which case it is, for the terminal."""
    by = ", ".join(audit["auditors"]) or "nobody with certainty"
    return f"{_TITLES[_audited_case(audit)]} ({audit['answered']} of {audit['drawn']} answered by {by})"


def audit_rows(audit: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, estimate and interval of every figure of an audit."""
    rows = [
        ("labels wrong as given", audit["noise_before"]),
        ("labels wrong as the machine decided", audit["noise_after"]),
        ("wrong among the suspects", audit["among_suspects"]),
        (
            f"wrong among the others (detection expects {format_percent(audit['expected_rest'])})",
            audit["among_rest"],
        ),
        ("share of the wrong labels that are suspects", audit["found"]),
        ("suspects for which neither label is right", audit["neither"]),
        ("answers of the annotator that are right", audit["annotator_accuracy"]),
        ("changes that are wrong", audit["changes_wrong"]),
        ("wrong suspects repaired", audit["repaired"]),
        ("right suspects made wrong", audit["harm_among_suspects"]),
    ]
    return [
        (
            name,
            format_percent(rate["value"]),
            f"{format_percent(rate['low'])} to {format_percent(rate['high'])}",
        )
        for name, rate in rows
        if rate is not None
    ]


def certificate_sentence(statement: Mapping[str, Any]) -> str:
    """What a certificate says, or why there is none; and of all labels, where some drawn from all were audited."""
    error = statement.get("final_error")
    if error is None:
        return _changes_certified(statement)
    return (
        f"{_changes_certified(statement)} Of all labels at most {format_percent(error['bound'])} are wrong in the end, with "
        f"{format_percent(1 - statement['delta'])} certainty ({error['answered']:,} answers about labels drawn from all, "
        f"{error['wrong']:,} of them not for the label that was decided)."
    )


def _changes_certified(statement: Mapping[str, Any]) -> str:
    accepted, proposals = statement["accepted"], statement["proposals"]
    target, sure = format_percent(statement["target"]), format_percent(1 - statement["delta"])
    asked = f"{statement['audited']:,} answers, {statement['wrong']:,} of them that the change is wrong"
    if not proposals:
        return "There is nothing to certify: model and annotator change no label."
    if accepted:
        by = ", ".join(statement["auditors"])
        rest = (
            ""
            if accepted == proposals
            else f" The other {proposals - accepted:,} are referred to a person."
            if statement["restricts"]
            else f" Set relabel.certify to change only these; the other {proposals - accepted:,} changes are not covered."
        )
        which = f"all {proposals:,}" if accepted == proposals else f"the {accepted:,} surest of {proposals:,}"
        return (
            f"Certified with {sure} certainty: at least {target} of {which} changes are right, as {by} judges ({asked})."
            f"{rest}"
        )
    if statement["ended_by"] == "answers":
        return f"Not certified yet ({asked}); further questions are open."
    why = {
        "below target": "too many of the surest changes are wrong",
        "budget": "relabel.certify.labels answers can no longer show it",
    }.get(statement["ended_by"], statement["ended_by"])
    return f"Not certified: {why} ({asked}). Raise labels, lower target, or have a person check the changes."


def _audited_case(audit: Mapping[str, Any]) -> Case:
    if audit["systematic"]:
        return "systematic"
    limits = audit["found"]["low"], audit["among_rest"]["high"], audit["expected_rest"]
    return "random-like" if is_random_like(*limits) else "too few answers"


def _offer(config: Mapping[str, Any]) -> str:
    sample = config["audit"]["suspects"] + config["audit"]["random"]
    minutes = max(1, round(sample * SECONDS_PER_ANSWER / 60))
    return f"An audit of {sample} labels ({_command('audit', config)}), some {minutes} minutes of a person's time,"


def _command(name: str, config: Mapping[str, Any]) -> str:
    """The command for this run, as it is typed in the folder where the run was started."""
    run, here = posixpath.join(config["output"], config["name"]), os.getcwd()
    if run.startswith(f"{here}/"):
        run = run[len(here) + 1 :]
    return f"rayclean {name} {shlex.quote(run)}"


def _changes(metrics: Mapping[str, Any]) -> str:
    counts = metrics["counts"]
    return (
        f"{counts['changed']:,} of {counts['examples']:,} labels {'was' if counts['changed'] == 1 else 'were'} changed and "
        f"{referred_to_person(counts)}."
    )


def _expected(expected: Mapping[str, float] | None) -> list[str]:
    if expected is None:
        return []
    value, low, high = (round(expected[name]) for name in ("value", "low", "high"))
    return [
        f"By the run's own reckoning, which nobody has checked, some {value:,} ({low:,} to {high:,}) of the changes are wrong."
    ]


def _audited(audit: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    if not audit["answered"]:
        return [
            f"None of the {audit['drawn']:,} audited labels has an answer that counts: these are unsure, or in conflict."
        ]
    before, after, wrong = audit["noise_before"], audit["noise_after"], audit["changes_wrong"]
    found = [
        f"Wrong labels: {_rate(before)} as given, {_rate(after)} as decided, by {audit['answered']:,} answers of "
        f"{', '.join(audit['auditors'])}."
    ]
    if wrong is not None and wrong["value"] is not None:
        found.append(f"Of the changes, {_rate(wrong)} are wrong.")
    case = _audited_case(audit)
    if case == "systematic":
        found.append(
            f"Among labels that nobody doubted {_rate(audit['among_rest'])} are wrong, where detection expects "
            f"{format_percent(audit['expected_rest'])}. {_HELP}"
        )
    elif audit["found"]["value"] is not None:
        found.append(f"Of all wrong labels, {_rate(audit['found'])} were doubted.")
    if case == "too few answers":
        found.append(
            f"Among labels that nobody doubted {_rate(audit['among_rest'])} are wrong, where detection expects "
            f"{format_percent(audit['expected_rest'])}: answers to the questions that are open "
            f"({_command('audit', config)}), or to more of them (audit.suspects, audit.random), narrow this down."
        )
    return found


def _certified(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    certificate = metrics["certificate"]
    if certificate is not None and certificate["void"] is None:
        return certificate_sentence(certificate)
    needed = _needed_answers(metrics, config)
    if certificate is not None:
        return f"The certificate is void: since then, {certificate['void']} changed. {needed}"
    return f"Not certified. {needed}"


def _needed_answers(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What a certificate of this run takes, by the test that is done; a test of a large set that asks a number fixed
    beforehand would take a few answers fewer.
    """
    rule = CertifyConfig(**(config["relabel"]["certify"] or {}))
    count = metrics.get("proposals", metrics["counts"]["changed"])
    if not count:
        return "There is nothing to certify: model and annotator change no label."
    least, first = fewest_answers(count, rule.target, rule.delta), nested_sizes(count)[0]
    which = f"all {count:,}" if first == count else f"the {first:,} surest of {count:,}"
    every = needed_answers(count, rule.target, rule.delta, 0)[0]
    return (
        f"{least} answers without a wrong one ({_command('certify', config)}) certify with "
        f"{format_percent(1 - rule.delta)} certainty that {format_percent(rule.target)} of {which} changes are right"
        f"{'' if first == count else f'; all {count:,} take at least {every}'}."
    )


def _rate(rate: Mapping[str, float | None]) -> str:
    return (
        f"{format_percent(rate['value'])} ({format_percent(rate['low'])} to {format_percent(rate['high'])})"
    )
