"""What the questions of a sweep can come to, said before anybody is asked."""

from collections.abc import Sequence

from rayclean.annotators import build_annotator
from rayclean.artifacts import Folder
from rayclean.config import Config
from rayclean.methods import METHODS
from rayclean.plugins import build_options, resolve
from rayclean.sweeps.plan import Work
from rayclean.sweeps.store import FREE

CHARACTERS_PER_TOKEN = 4
TOKENS_AROUND = 40
"""Of a prompt, beside the texts: the instruction and the labels."""


def forecast(works: Sequence[Work], folder: Folder, times: int = 1) -> str:
    """The most that trials can ask; tokens and cost are estimates, since no tokenizer has read a text yet.

    Args:
        works: trials without a result. Those that relabel alike ask once.
        folder: of the sweep.
        times: so many trials are like each of them (points that Optuna has not drawn yet).
    """
    relabels = list({work.prints["relabel"]: work for work in works}.values())
    asked = [_questions(work, folder) for work in relabels]
    said = []
    if None in asked:
        said.append("questions by the size of the data, which is not loaded yet")
    else:
        total = times * sum(count or 0 for count in asked)
        said.append(f"relabel asks at most {total:,} questions")
        pairs = [(work, count or 0) for work, count in zip(relabels, asked, strict=True)]
        paid = [(work, count * _tokens(work, folder)) for work, count in pairs if _pays(work.config)]
        if paid:
            said[-1] += f", about {times * sum(tokens for _, tokens in paid):,} tokens{_cost(paid, times)}"
    said += _while_training(works, times)
    return "; ".join([*said, "what was asked before is free"])


def _questions(work: Work, folder: Folder) -> int | None:
    """At most, by the budgets; None if that hangs on data which are not loaded."""
    budget, most = work.config.detect.budget, work.config.relabel.max_queries
    manifest = work.run(folder.url()).manifest("load")
    if isinstance(budget, float) and manifest is None:
        return most
    examples = int(manifest.metrics["examples"]) if manifest is not None else 0
    share: int = round(budget * examples) if isinstance(budget, float) else int(budget)
    return share if most is None else min(share, most)


def _tokens(work: Work, folder: Folder) -> int:
    """Of one question, about: its text and those of the demonstrations."""
    manifest = work.run(folder.url()).manifest("load")
    mean = float(manifest.metrics["characters"]["mean"]) if manifest is not None else 0.0
    longest = float(getattr(build_annotator(work.config, ()).config, "max_text_chars", mean))
    texts = (1 + work.config.relabel.demonstrations) * min(mean, longest)
    return round(texts / CHARACTERS_PER_TOKEN) + TOKENS_AROUND


def _cost(paid: Sequence[tuple[Work, int]], times: int) -> str:
    """At the price of prompts: answers are a few tokens."""
    amounts = [
        (work.config.relabel, tokens * work.config.relabel.price_prompt / 1e6) for work, tokens in paid
    ]
    if not any(amount for _, amount in amounts):
        return ""
    capped = sum(
        amount if relabel.max_cost is None else min(amount, relabel.max_cost) for relabel, amount in amounts
    )
    return f", {times * capped:,.2f} at the config's prices"


def _while_training(works: Sequence[Work], times: int) -> list[str]:
    """What methods ask between epochs: how much hangs on how training goes."""
    said = []
    for name in dict.fromkeys(work.config.method.name for work in works):
        cls = resolve("method", METHODS, name)
        own = {work.prints["train"]: work.config for work in works if work.config.method.name == name}
        methods = [
            cls(build_options("method", cls, config.method.options), 2, config.seed)
            for config in own.values()
        ]
        limits = [getattr(method.config, "max_queries", None) for method in methods if method.asks]
        if limits and None in limits:
            said.append(
                f"{name} asks in {times * len(limits):,} trainings as well (method.max_queries sets no limit)"
            )
        elif limits:
            said.append(f"{name} asks at most {times * sum(filter(None, limits)):,} more in training")
    return said


def _pays(config: Config) -> bool:
    return config.annotator.name not in FREE
