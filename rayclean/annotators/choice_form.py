"""The prompt form `choice`: a chat answer constrained to the candidates, in both orders of the candidates.

With two candidates the answers are the letters A and B with their log-probabilities. With more, the answer is
a label's word, which gets probability 1. The probabilities of both orders are averaged, which cancels a
preference for the first option; orders that disagree give probabilities near 1/2. The options stand at the end of
the prompt, so that both orders share the text in the server's prefix cache.
"""

import asyncio
import json
import math
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rayclean.annotators.base import ANSWER_TOKENS, PROMPT_CHARACTERS, best_position
from rayclean.annotators.endpoint import EndpointError, Post, usage
from rayclean.annotators.prompts import Option, Prompt, prompt_hash
from rayclean.annotators.query import Annotation, Expected, Query
from rayclean.schema import Candidate, Label

if TYPE_CHECKING:
    from rayclean.annotators.openai import OpenAIAnnotator

FLOOR = 1e-6
"""Least probability of a candidate, so that its logarithm is finite."""
BLANKS = ' \t\n▁Ġ"'
"""Characters that tokenizers may add around a letter in a token."""


class ChoiceForm:
    """Prompt form of a choice between candidates, as a chat."""

    REQUESTS = 2
    """Concurrent requests of a query: one for each order."""
    DEMONSTRATIONS = 0
    """Number of demonstrations by default: a chat model knows the labels by their definitions."""
    REQUIREMENT = (
        "It must constrain answers to the candidates: try annotator.constraint = 'json_schema' or "
        "'structured_outputs', and annotator.logprobs = false if it has no log-probabilities"
    )
    """End of the error message about an endpoint that the probe refuses."""

    def __init__(self, config: "OpenAIAnnotator.Config", prompt: Prompt, labels: Sequence[Label]):
        self.config = config
        self.prompt = prompt

    def calibration(self, num_classes: int) -> str:
        """No calibration, since both orders are asked, and since only candidates have scores, so that a
        label's mean score would mix confusions in the data with the model's bias.
        """
        return "none"

    def load(self) -> None:
        """Do nothing, as this form needs only the endpoint."""

    async def probe(self, post: Post, model: str) -> None:
        """Ask a question whose natural answer is neither A nor B, to test that the constraint forces one of
        them.

        Raises:
            EndpointError: it does not, or the endpoint returns no log-probabilities of the letters.
        """
        question = "What is the capital of France? Answer with the name of the city."
        await self._ask(post, model, question, ["A", "B"], self.config.logprobs)

    def identity(self) -> dict[str, Any]:
        """The options on which answers depend, except the prompt."""
        return {"constraint": self.config.constraint, "logprobs": self.config.logprobs}

    def sent(self, query: Query) -> list[str]:
        """The prompts with the candidates in order and in reverse order."""
        orders = (query.candidates, query.candidates[::-1])
        return [self.prompt.render(query, options=_options(order)) for order in orders]

    def prompts(self, query: Query) -> tuple[str, ...]:
        """One for each order of the candidates."""
        return tuple(self.sent(query))

    def expected(self, query: Query) -> Expected:
        """Estimate the cost of a choice: two requests, one for each order."""
        characters = len(self.prompt.render(query, options=_options(query.candidates)))
        return Expected(2, 2 * (characters // PROMPT_CHARACTERS), 2 * ANSWER_TOKENS)

    async def answer(self, post: Post, query: Query, unanswered: Annotation) -> Annotation:
        """`unanswered` completed by the endpoint's answers in both orders.

        Raises:
            EndpointError: a request failed, or an answer is not a candidate.
        """
        shown = [_options(order) for order in (query.candidates, query.candidates[::-1])]
        prompts = self.sent(query)
        logprobs = len(query.candidates) == 2 and self.config.logprobs
        results = await asyncio.gather(
            *(
                self._ask(post, unanswered.model, prompt, [option.answer for option in options], logprobs)
                for prompt, options in zip(prompts, shown, strict=True)
            ),
            return_exceptions=True,  # both are paid for, so wait for both
        )
        done = [result for result in results if not isinstance(result, BaseException)]
        for result in results:
            if isinstance(result, EndpointError):
                for _, response in done:
                    result.paid(*usage(response))
            if isinstance(result, BaseException):
                raise result
        forward, backward = (probabilities for probabilities, _ in done)
        means = [(one + other) / 2 for one, other in zip(forward, backward[::-1], strict=True)]
        scores = tuple(math.log(max(probability, FLOOR)) for probability in means)
        tokens = [usage(response) for _, response in done]
        return replace(
            unanswered,
            choice=best_position(scores, tolerance=1e-9),
            scores=scores,
            raw=json.dumps([response["choices"][0] for _, response in done]),
            prompt_hash=prompt_hash(*prompts),
            prompt_tokens=sum(prompt for prompt, _ in tokens),
            answer_tokens=sum(answer for _, answer in tokens),
        )

    async def _ask(
        self, post: Post, model: str, prompt: str, answers: list[str], logprobs: bool
    ) -> tuple[list[float], dict[str, Any]]:
        """Send one request; returns the probability of each possible answer and the endpoint's response."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 64,
        }
        if self.config.constraint == "structured_outputs":
            body["structured_outputs"] = {"choice": answers}
        else:
            schema = {
                "type": "object",
                "properties": {"answer": {"type": "string", "enum": answers}},
                "required": ["answer"],
                "additionalProperties": False,
            }
            named = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": 20}
        response = await post("chat/completions", body)
        try:
            return _probabilities(response, answers, self.config.constraint, logprobs), response
        except EndpointError as error:
            raise error.paid(*usage(response)) from None


def _options(order: Sequence[Candidate]) -> list[Option]:
    """The candidates as the prompt shows them: two as letters, more by their words."""
    answers = string.ascii_uppercase if len(order) == 2 else [candidate.word for candidate in order]
    return [Option(answer, x.word, x.definition) for answer, x in zip(answers, order, strict=False)]


def _probabilities(
    response: dict[str, Any], answers: list[str], constraint: str, logprobs: bool
) -> list[float]:
    """Probability of each possible answer according to one response."""
    try:
        choice = response["choices"][0]
        text = choice["message"]["content"].strip()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        message = f"no answer in the response ({type(error).__name__} {error})"
        raise EndpointError("invalid", message) from None
    chosen = text if constraint == "structured_outputs" else _json_answer(text)
    if chosen not in answers:
        raise EndpointError("outside", f"answered {text[:80]!r}, expected one of {answers[:8]}")
    return _letters(choice, answers) if logprobs else [float(answer == chosen) for answer in answers]


def _json_answer(text: str) -> str | None:
    """The value of `answer` in a JSON object; None for anything else."""
    try:
        value = json.loads(text)["answer"]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _letters(choice: dict[str, Any], answers: list[str]) -> list[float]:
    """Probabilities of the letters at the token that spells the answer, normalised over the letters."""
    try:
        for token in choice["logprobs"]["content"]:
            if token["token"].strip(BLANKS) in answers:
                found = dict.fromkeys(answers, FLOOR)
                for other in token["top_logprobs"]:
                    letter = other["token"].strip(BLANKS)
                    if letter in found:
                        found[letter] += math.exp(min(float(other["logprob"]), 0.0))
                total = sum(found.values())
                if not total > len(answers) * FLOOR:
                    break
                return [p / total for p in found.values()]
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise EndpointError(
        "invalid", "no log-probabilities for the letters; set annotator.logprobs = false to do without them"
    )
