"""The budget of an annotator, in queries, tokens and currency."""

from dataclasses import dataclass
from typing import Any, Self

from rayclean.annotators.base import BUDGET_OPTIONS, Annotator
from rayclean.annotators.ledger import Spent


@dataclass(frozen=True)
class Budget:
    """Limits on the spending of one session of a ledger; None: no limit. `allows` applies them."""

    max_queries: int | None = None
    max_tokens: int | None = None
    """Most tokens of prompts and answers together."""
    max_cost: float | None = None
    """Most cost in currency, at the two prices."""
    price_prompt: float = 0.0
    """Price in currency per million prompt tokens."""
    price_answer: float = 0.0
    """Price in currency per million answer tokens."""

    @classmethod
    def of(cls, annotator: Annotator) -> Self:
        """The budget that an annotator's options set."""
        return cls(**{name: getattr(annotator.config, name) for name in BUDGET_OPTIONS})

    def paid(self, spent: Spent) -> dict[str, Any]:
        """Metrics of a verb's queries: `asked`, `tokens` (`prompt` and `answer`), `cost` in currency."""
        return {
            "asked": spent.queries,
            "tokens": {"prompt": spent.prompt_tokens, "answer": spent.answer_tokens},
            "cost": self.cost(spent.prompt_tokens, spent.answer_tokens),
        }

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Price of some tokens, in currency."""
        return (prompt_tokens * self.price_prompt + answer_tokens * self.price_answer) / 1e6

    def allows(self, sent: int, spent: Spent) -> bool:
        """Whether one more query may be sent, after `sent` queries with total expenses `spent`."""
        tokens = spent.prompt_tokens + spent.answer_tokens
        return (
            (self.max_queries is None or sent < self.max_queries)
            and (self.max_tokens is None or tokens < self.max_tokens)
            and (self.max_cost is None or self.cost(spent.prompt_tokens, spent.answer_tokens) < self.max_cost)
        )
