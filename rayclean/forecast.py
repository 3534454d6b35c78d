"""A forecast of the number and cost of queries to annotators, in one sentence per asker and annotator."""

from collections.abc import Mapping, Sequence

from rayclean.annotators.estimate import LoadedTexts, QuestionEstimate, estimate_questions, estimate_relabel
from rayclean.config import Config
from rayclean.evaluation.formatting import format_money
from rayclean.methods import METHODS
from rayclean.run import Run

PlannedRun = tuple[Config, Run, Mapping[str, str]]
"""A run with its config and its fingerprints by verb."""


def forecast(runs: Sequence[PlannedRun], verbs: Sequence[str], *, drawn: bool = False) -> str:
    """Forecast the most queries that runs can send, with estimates of their tokens and cost.

    Args:
        runs: planned runs; those with the same fingerprint of a verb are counted once, finished verbs not at
            all.
        verbs: verbs of every run.
        drawn: whether the runs are a random sample of the actual ones, which are not known yet.
    """
    loads = {prints["load"]: run for _, run, prints in runs}
    loaded = {digest: LoadedTexts.of(run) for digest, run in loads.items()}
    groups: dict[tuple[str, str, str | None], list[QuestionEstimate]] = {}
    for verb, estimate in (("relabel", estimate_relabel), ("train", estimate_training)):
        different = {prints[verb]: (config, run, prints) for config, run, prints in runs if verb in verbs}
        for config, run, prints in different.values():
            for found in () if run.done(verb, prints[verb]) else estimate(config, loaded[prints["load"]]):
                if found.most != 0:
                    key = found.asker, found.annotator, found.budget.currency
                    groups.setdefault(key, []).append(found)
    sentences = [_sentence(group, "about" if drawn else "at most") for group in groups.values()]
    if any(group[0].billable for group in groups.values()):
        sentences.append("what was asked before is free")
    return "; ".join(sentences) or "no questions are left"


def estimate_training(config: Config, data: LoadedTexts | None) -> list[QuestionEstimate]:
    """Estimate the queries of the configured method in one training; [] if it sends none."""
    method, options = METHODS.checked(config.method)
    queries = method.expected_queries(options)
    if queries is None:
        return []
    return [
        estimate_questions(
            config.method.name, config, data, queries.most, queries.demonstrations, queries.candidates
        )
    ]


def _sentence(group: Sequence[QuestionEstimate], most: str) -> str:
    """A sentence on all estimates of one asker and one annotator."""
    first, training = group[0], group[0].asker != "relabel"
    asks = f"{first.asker} asks {first.annotator}"
    if all(each.most is not None for each in group):
        count = sum(each.most or 0 for each in group)
        asks += f" {most} {count:,} questions" + (" while it trains" if training else "")
    elif training:
        asks += f" in {len(group):,} training{'s' * (len(group) > 1)} (method.max_queries sets no limit)"
    else:
        asks += " by the size of the data, which is not loaded yet"
    twice = all(each.each is not None and each.each.requests > 1 for each in group)
    return f"{asks}{', each in two requests' if twice else ''}{_price(group)}"


def _price(group: Sequence[QuestionEstimate]) -> str:
    """Tokens and cost of all queries, or of one query if their number is not known."""
    if not group[0].billable:
        return ", free"
    if any(each.each is None for each in group):
        return ""
    if all(each.most is not None for each in group):
        per, worth = "", [each.worth(each.most or 0) for each in group]
    else:
        per, worth = " a question", [max(each.worth(1) for each in group)]
    tokens, cost = (sum(column) for column in zip(*worth, strict=True))
    money = f", {format_money(cost, group[0].budget.currency)} at the config's prices" if cost else ""
    return f", about {tokens:,} tokens{per}{money}"
