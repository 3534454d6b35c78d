"""An annotator with a language model that rayclean serves by vLLM behind Ray Serve.

`ServedAnnotator.server` only describes the model and its server; `rayclean.runtime.serve.hosted` starts the
server and provides the same annotator with its address. The server lists the model as `name@content`
(`model_source.py`), so the client's check of `/models` also verifies the weights.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from rayclean.annotators.model_server import ModelServer, ServerOptions
from rayclean.annotators.model_source import model_name
from rayclean.annotators.openai import OpenAIAnnotator

SPARE_TOKENS = 32
"""Number of tokens reserved after a prompt for the longest label word."""


class ServedAnnotator(OpenAIAnnotator):
    """Annotator that queries a language model which rayclean starts and stops."""

    class Config(OpenAIAnnotator.Config):
        """Options of the annotator `openai`, with a model and its server in place of an address."""

        model: str = "smollm2-135m"
        """`smollm2-135m` (built-in), a Hugging Face folder, a .gguf file, or a hub id."""
        revision: str | None = None
        """Branch, tag or commit of a hub id; answers are recorded under the commit."""
        timeout: float = Field(120.0, gt=0)
        """Seconds per request; a busy server has some hundred of them waiting."""
        server: ServerOptions = ServerOptions()
        """Options of the server."""

        @model_validator(mode="after")
        def _prompt_fits(self) -> Self:
            if (
                self.form == "label_words"
                and self.max_prompt_tokens + SPARE_TOKENS > self.server.max_model_len
            ):
                raise ValueError(
                    f"server.max_model_len must be at least max_prompt_tokens + {SPARE_TOKENS} "
                    f"({self.max_prompt_tokens + SPARE_TOKENS}), got {self.server.max_model_len}"
                )
            return self

        def identity(self) -> dict[str, Any]:
            """The options on which answers depend, without `model` and `revision`, sizes and addresses."""
            options = super().identity()
            del options["revision"]
            return options | {
                "model": model_name(self.model, self.revision),
                "server": self.server.identity(),
            }

    config: Config

    def identity(self) -> dict[str, Any]:
        """The model, the prompt form and its options, and the options of the engine that affect answers."""
        return super().identity() | {"server": self.config.server.identity()}

    def server(self) -> ModelServer:
        """The model to serve and the options of its server."""
        return ModelServer(self.config.model, self.config.revision, self.config.server)

    def check(self) -> None:
        """Refuse a model that does not exist, and labels with equal words; the address is not known yet."""
        model_name(self.config.model, self.config.revision)
        self.check_words()

    @property
    def model_name(self) -> str:
        """Identity of the model, `name@content`, as listed by the server and recorded in the ledger."""
        return model_name(self.config.model, self.config.revision)

    def at(self, base_url: str, tokenizer: str, requests: int) -> Self:
        """The same annotator (same identity, same keys), connected to a running server.

        Args:
            base_url: the server's address, with `/v1`.
            tokenizer: folder or hub id of the served model's tokenizer.
            requests: number of concurrent requests that keep the server busy; the queries of so many requests are
                concurrent, unless the config says how many are.
        """
        queries = self.config.concurrency or max(1, requests // self._form.REQUESTS)
        config = self.config.model_copy(
            update={"base_url": base_url, "tokenizer": tokenizer, "concurrency": queries}
        )
        connected = type(self)(config, self.labels, self.seed)
        connected.task = self.task
        return connected
