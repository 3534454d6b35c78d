"""The budget of an annotator, in queries, tokens and money."""

from dataclasses import dataclass, replace
from typing import Any, Self

from rayclean.annotators import ANNOTATORS, relabel_annotators
from rayclean.annotators.base import BUDGET_OPTIONS, Annotator
from rayclean.annotators.ledger import Spent
from rayclean.config import Config
from rayclean.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """Limits on the spending of one session of a ledger; None: no limit. `allows` applies them."""

    max_queries: int | None = None
    max_tokens: int | None = None
    """Most tokens of prompts and answers together."""
    max_cost: float | None = None
    """Most cost in `currency`, at the two prices."""
    price_prompt: float = 0.0
    """Price of a million prompt tokens."""
    price_answer: float = 0.0
    """Price of a million answer tokens."""
    currency: str | None = None
    """What the prices are in, such as USD; None: there are none."""

    @classmethod
    def of(cls, annotator: Annotator) -> Self:
        """The budget that an annotator's options set."""
        return cls(**{name: getattr(annotator.config, name) for name in BUDGET_OPTIONS})

    def paid(self, spent: Spent) -> dict[str, Any]:
        """Metrics of a verb's queries: `asked`, `tokens` (`prompt` and `answer`), `cost` and its `currency`."""
        return {
            "asked": spent.queries,
            "tokens": {"prompt": spent.prompt_tokens, "answer": spent.answer_tokens},
            "cost": self.cost(spent.prompt_tokens, spent.answer_tokens),
            "currency": self.currency,
        }

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Price of some tokens, in `currency`."""
        return (prompt_tokens * self.price_prompt + answer_tokens * self.price_answer) / 1e6

    def for_controls(self, suspects: int) -> Self | None:
        """What control questions, which are asked first, may use: half of every limit, so that suspects are asked too, and of
        the queries also what the suspects leave; None where nothing is limited.

        >>> Budget(max_queries=100).for_controls(1000).max_queries, Budget(max_queries=100).for_controls(20).max_queries
        (50, 80)
        """
        queries, tokens, cost = self.max_queries, self.max_tokens, self.max_cost
        if queries is None and tokens is None and cost is None:
            return None
        return replace(
            self,
            max_queries=None if queries is None else max(queries // 2, queries - suspects),
            max_tokens=None if tokens is None else tokens // 2,
            max_cost=None if cost is None else cost / 2,
        )

    def allows(self, sent: int, spent: Spent) -> bool:
        """Whether one more query may be sent, after `sent` queries with total expenses `spent`."""
        tokens = spent.prompt_tokens + spent.answer_tokens
        return (
            (self.max_queries is None or sent < self.max_queries)
            and (self.max_tokens is None or tokens < self.max_tokens)
            and (self.max_cost is None or self.cost(spent.prompt_tokens, spent.answer_tokens) < self.max_cost)
        )


def common_currency(config: Config) -> str | None:
    """The currency of everything that a run pays; None where nothing has a price.

    Raises:
        ConfigError: two annotators have prices in different currencies, which cannot be added.
    """
    names: dict[str, str] = {}
    for plugin in (*relabel_annotators(config), config.annotator):
        options: Any = ANNOTATORS.checked(plugin)[1]
        if options.currency:
            names.setdefault(options.currency, plugin.name)
    if len(names) > 1:
        prices = " and ".join(f"those of {name} in {currency}" for currency, name in sorted(names.items()))
        raise ConfigError(
            f"the prices of a run's annotators are in different currencies, {prices}, and their costs are added up: "
            "write all prices and max_cost in one currency"
        )
    return next(iter(names), None)
