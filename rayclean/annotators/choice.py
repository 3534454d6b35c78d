"""The choice form: a constrained answer in chat form, both orders asked, probabilities averaged."""

import asyncio
import json
import math
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rayclean.annotators.base import ANSWER_TOKENS, PROMPT_CHARACTERS, Annotation, Expected, Query
from rayclean.annotators.endpoint import EndpointClient, EndpointError, usage
from rayclean.annotators.prompts import Option, Prompt, prompt_hash
from rayclean.schema import Label

FLOOR = 1e-6
"""Least probability of a candidate, so that its logarithm is finite."""


async def ask_choice(
    endpoint: EndpointClient, blank: Annotation, query: Query, prompt: Prompt, config: Any
) -> Annotation:
    """Ask in both orders and average.

    With two candidates the answers are the letters A and B and their log-probabilities are read; with more, the
    answer is a word and counts as probability 1. Disagreement between the orders shows as a probability near 1/2.

    Raises:
        EndpointError: a request failed, or an answer is none of the candidates.
    """
    orders = (query.candidates, query.candidates[::-1])
    letters = len(query.candidates) == 2
    prompts, options = [], []
    for order in orders:
        shown = shown_options(order)
        options.append([option.answer for option in shown])
        prompts.append(prompt.render(query, options=shown))
    read = letters and config.logprobs
    results = await asyncio.gather(
        *(
            _ask(endpoint, blank.model, text, answers, config.constraint, read)
            for text, answers in zip(prompts, options, strict=True)
        ),
        return_exceptions=True,  # both are paid: wait for both
    )
    done = [result for result in results if not isinstance(result, BaseException)]
    for result in results:
        if isinstance(result, EndpointError):
            for _, answer in done:
                result.paid(*usage(answer))
        if isinstance(result, BaseException):
            raise result
    scores = _average(orders, options, [probabilities for probabilities, _ in done])
    ranked = sorted(query.candidates, key=lambda label: -scores[label.index])
    tie = len(ranked) > 1 and math.isclose(scores[ranked[0].index], scores[ranked[1].index], abs_tol=1e-9)
    tokens = [usage(answer) for _, answer in done]
    return replace(
        blank,
        label=None if tie else ranked[0].index,
        scores=scores,
        raw=json.dumps([answer["choices"][0] for _, answer in done]),
        prompt_hash=prompt_hash(*prompts),
        prompt_tokens=sum(prompt for prompt, _ in tokens),
        answer_tokens=sum(written for _, written in tokens),
    )


def shown_options(candidates: Sequence[Label]) -> list[Option]:
    """The possible answers as a prompt shows them: the letters A and B for two candidates, else their words."""
    answers = string.ascii_uppercase if len(candidates) == 2 else [label.word for label in candidates]
    return [
        Option(answer, label.word, label.definition)
        for answer, label in zip(answers, candidates, strict=False)
    ]


def expected_choice(query: Query, prompt: Prompt) -> Expected:
    """An estimate of what a choice takes: two requests, one for each order."""
    characters = len(prompt.render(query, options=shown_options(query.candidates)))
    return Expected(2, 2 * (characters // PROMPT_CHARACTERS), 2 * ANSWER_TOKENS)


async def probe_choice(endpoint: EndpointClient, model: str, constraint: str, logprobs: bool) -> None:
    """Ask what nobody answers with A or B; the constraint must force one of them all the same.

    Raises:
        EndpointError: it does not, or the letters' log-probabilities do not come back.
    """
    question = "What is the capital of France? Answer with the name of the city."
    await _ask(endpoint, model, question, ["A", "B"], constraint, logprobs)


def _average(
    orders: Sequence[Sequence[Label]],
    options: Sequence[Sequence[str]],
    probabilities: Sequence[dict[str, float]],
) -> dict[int, float]:
    """Log of the mean probability per label index."""
    mean: dict[int, float] = {}
    for order, answers, found in zip(orders, options, probabilities, strict=True):
        for label, answer in zip(order, answers, strict=True):
            mean[label.index] = mean.get(label.index, 0.0) + found[answer] / len(orders)
    return {index: math.log(max(p, FLOOR)) for index, p in mean.items()}


async def _ask(
    endpoint: EndpointClient, model: str, prompt: str, answers: list[str], constraint: str, logprobs: bool
) -> tuple[dict[str, float], dict[str, Any]]:
    """One request: probability per possible answer, and the answer's JSON."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 64,
    }
    if constraint == "structured_outputs":
        body["structured_outputs"] = {"choice": answers}
    else:
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": answers}},
            "required": ["answer"],
            "additionalProperties": False,
        }
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": 20}
    answer = await endpoint.post("chat/completions", body)
    try:
        return _read(answer, answers, constraint, logprobs), answer
    except EndpointError as error:
        raise error.paid(*usage(answer)) from None


def _read(answer: dict[str, Any], answers: list[str], constraint: str, logprobs: bool) -> dict[str, float]:
    """Probability per possible answer."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"].strip()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise EndpointError(
            "invalid", f"no answer in the response ({type(error).__name__} {error})"
        ) from None
    chosen = text if constraint == "structured_outputs" else _field(text)
    if chosen not in answers:
        raise EndpointError("outside", f"answered {text[:80]!r}, expected one of {answers[:8]}")
    return _letters(choice, answers) if logprobs else {a: float(a == chosen) for a in answers}


def _field(text: str) -> str | None:
    try:
        value = json.loads(text)["answer"]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _letters(choice: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Probabilities of the letters at the token that spells the answer, normalised over them."""
    try:
        for token in choice["logprobs"]["content"]:
            if token["token"].strip(' \t\n▁Ġ"') in answers:
                found = dict.fromkeys(answers, FLOOR)
                for other in token["top_logprobs"]:
                    letter = other["token"].strip(' \t\n▁Ġ"')
                    if letter in found:
                        found[letter] += math.exp(min(float(other["logprob"]), 0.0))
                total = sum(found.values())
                if not total > len(answers) * FLOOR:
                    break
                return {letter: p / total for letter, p in found.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise EndpointError(
        "invalid", "no log-probabilities for the letters; annotator.logprobs = false does without them"
    )
