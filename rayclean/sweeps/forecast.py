"""What the questions of a sweep can come to, said before anybody is asked."""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rayclean.annotators import build_annotator
from rayclean.annotators.base import Demonstration, Query
from rayclean.annotators.engine import Budget
from rayclean.annotators.openai import OpenAIAnnotator
from rayclean.annotators.prompts import Option
from rayclean.config import Config
from rayclean.folder import Folder
from rayclean.functional.combine import allowed
from rayclean.methods import METHODS
from rayclean.schema import Label, LabelSet
from rayclean.sweeps.page.wording import amount
from rayclean.sweeps.plan import Work
from rayclean.sweeps.trial_run import FREE, TrialRun

CHARACTERS_PER_TOKEN = 4
TOKENS_AROUND = 40
"""Beside the texts, of a prompt that only its annotator knows."""
ANSWER_TOKENS = 8
"""Of the answer to a request: a letter or a word, perhaps in JSON."""


@dataclass(frozen=True)
class Data:
    """What `load` found."""

    examples: int
    characters: int
    """Of a text, on average."""
    labels: LabelSet

    def described(self, config: Config) -> tuple[Label, ...]:
        """The labels as prompts call them."""
        known = set(self.labels.names)
        words, definitions = (
            {name: text for name, text in said.items() if name in known}  # another one is its trial's error
            for said in (config.dataset.words, config.dataset.definitions)
        )
        return tuple(self.labels.described(words, definitions))


@dataclass(frozen=True)
class Asking:
    """The questions of one relabelling, or of one training."""

    who: str
    """`relabel`, or a method."""
    config: Config
    most: int | None
    """So many; None: nobody can say."""
    requests: int
    """To the annotator, for each of them."""
    tokens: tuple[int, int] | None
    """Of a question's prompts and of its answers, about; None: the data are not known."""

    @property
    def whom(self) -> str:
        """The annotator."""
        return self.config.annotator.name

    def worth(self, questions: int) -> tuple[int, float]:
        """Tokens and cost of so many questions, within the config's budgets."""
        relabel = self.config.relabel
        prompt, answer = (questions * each for each in self.tokens or (0, 0))
        tokens, cost = prompt + answer, Budget.of(relabel).cost(prompt, answer)
        return (
            tokens if relabel.max_tokens is None else min(tokens, relabel.max_tokens),
            cost if relabel.max_cost is None else min(cost, relabel.max_cost),
        )


def forecast(works: Sequence[Work], folder: Folder, verbs: Sequence[str], *, drawn: bool = False) -> str:
    """The most that trials can ask; tokens and cost are estimates, since no tokenizer has read a text yet.

    Args:
        works: trials without a result. Those that relabel, or train, alike ask once; what is finished asks no more.
        folder: of the sweep.
        verbs: that a trial runs.
        drawn: whether they stand for others, which Optuna has not drawn yet.
    """
    runs = {work.prints["load"]: work.run(folder.url()) for work in works}
    data = {mark: _data(run) for mark, run in runs.items()}
    askings = [*_relabellings(works, folder, data)]
    if "train" in verbs:
        askings += _trainings(works, folder, data)
    groups: dict[tuple[str, str], list[Asking]] = {}
    for asking in askings:
        if asking.most != 0:
            groups.setdefault((asking.who, asking.whom), []).append(asking)
    said = [_sentence(group, "about" if drawn else "at most") for group in groups.values()]
    if any(whom not in FREE for _, whom in groups):
        said.append("what was asked before is free")
    return "; ".join(said) or "no questions are left"


def _sentence(group: Sequence[Asking], most: str) -> str:
    """Of all that ask the same annotator."""
    first, count = group[0], sum(asking.most or 0 for asking in group)
    asks, training = f"{first.who} asks {first.whom}", first.who != "relabel"
    both = ", each in two requests" if all(asking.requests > 1 for asking in group) else ""
    if all(asking.most is not None for asking in group):
        asks += f" {most} {count:,} questions" + (" while it trains" if training else "")
    elif training:
        asks += f" in {len(group):,} training{'s' * (len(group) > 1)} (method.max_queries sets no limit)"
    else:
        asks += " by the size of the data, which is not loaded yet"
    return f"{asks}{both}{_price(group)}"


def _price(group: Sequence[Asking]) -> str:
    """Of all questions together, or of one where their number is not known."""
    if group[0].whom in FREE:
        return ", free"
    if any(asking.tokens is None for asking in group):
        return ""
    if all(asking.most is not None for asking in group):
        per, worth = "", [asking.worth(asking.most or 0) for asking in group]
    else:
        per, worth = " a question", [max(asking.worth(1) for asking in group)]
    tokens, cost = (sum(each) for each in zip(*worth, strict=True))
    money = f", {amount('cost', cost, precision=3)} at the config's prices" if cost else ""
    return f", about {tokens:,} tokens{per}{money}"


def _relabellings(works: Sequence[Work], folder: Folder, data: Mapping[str, Data | None]) -> Iterator[Asking]:
    for work in _unfinished(works, "relabel", folder):
        relabel, found = work.config.relabel, data[work.prints["load"]]
        most, budget = relabel.max_queries, work.config.detect.budget
        if found is not None or isinstance(budget, int):
            suspects = allowed(budget, found.examples) if found is not None else int(budget)
            most = suspects if most is None else min(suspects, most)
        yield _asking("relabel", work.config, most, relabel.demonstrations, relabel.candidates, found)


def _trainings(works: Sequence[Work], folder: Folder, data: Mapping[str, Data | None]) -> Iterator[Asking]:
    """Of methods that ask between epochs: how much hangs on how training goes."""
    for work in _unfinished(works, "train", folder):
        plugin = work.config.method
        method = METHODS.build(plugin, 2, work.config.seed)
        if method.asks:
            options, found = method.config, data[work.prints["load"]]
            most: int | None = getattr(options, "max_queries", None)
            shown, candidates = getattr(options, "demonstrations", 0), getattr(options, "candidates", "all")
            yield _asking(plugin.name, work.config, most, shown, candidates, found)


def _unfinished(works: Sequence[Work], verb: str, folder: Folder) -> list[Work]:
    """A trial for each execution of a verb that is still to come."""
    each = {work.prints[verb]: work for work in works}
    return [work for mark, work in each.items() if not work.run(folder.url()).done(verb, mark)]


def _data(run: TrialRun) -> Data | None:
    manifest = run.manifest("load")
    if manifest is None:
        return None
    characters = round(manifest.metrics["characters"]["mean"])
    return Data(
        manifest.metrics["examples"], characters, LabelSet.from_json(run.read_text("load", "labels.json"))
    )


def _asking(
    who: str, config: Config, most: int | None, demonstrations: int, candidates: str, data: Data | None
) -> Asking:
    """With the tokens of a question, by a prompt with texts of mean length.

    A label word of several tokens costs the prompt again for all but the first, which is not counted: only the model's
    tokenizer knows.
    """
    if config.annotator.name in FREE or data is None:
        return Asking(who, config, most, 1, None)
    labels = data.described(config)
    annotator = build_annotator(config, labels)
    count, _ = annotator.demonstrations(demonstrations, "nearest")
    if not isinstance(annotator, OpenAIAnnotator):
        prompt = (1 + count) * data.characters // CHARACTERS_PER_TOKEN + TOKENS_AROUND
        return Asking(who, config, most, 1, (prompt, ANSWER_TOKENS))
    text = _prompt(annotator, labels, "x" * data.characters, count, candidates)
    prompt = len(text) // CHARACTERS_PER_TOKEN
    if annotator.config.form == "choice":  # both orders are asked
        return Asking(who, config, most, 2, (2 * prompt, 2 * ANSWER_TOKENS))
    return Asking(who, config, most, 1, (min(prompt, annotator.config.max_prompt_tokens), 1))


def _prompt(
    annotator: OpenAIAnnotator, labels: Sequence[Label], text: str, demonstrations: int, candidates: str
) -> str:
    """What is sent for a text, between the two labels that take most space where there are two."""
    longest = sorted(labels, key=lambda label: len(label.word) + len(label.definition), reverse=True)
    chosen = tuple(labels if candidates == "all" else longest[:2])
    shown = (Demonstration(text, longest[0].index),) * demonstrations
    answers = string.ascii_uppercase if len(chosen) == 2 else [label.word for label in chosen]
    options = [Option(answer, x.word, x.definition) for answer, x in zip(answers, chosen, strict=False)]
    query = Query(0, text, chosen, shown, chosen[0].index, chosen[-1].index)
    return annotator.prompt.render(query, options=options)
