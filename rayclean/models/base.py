"""The encoder seam: encode -> features, refine -> refined features, classify -> logits.

The parts are apart because features are cached (a frozen encoder computes them once, and only what comes
after is trained) and kept for retrieval, while methods mix (EmbMix) or compare (contrastive losses) what
stands right before the classes. Without a hidden layer both are the same.

A network answers once for a text, or (`per_token`) for each of the words into which a text came split: then
features and logits have an axis more, of words.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rayclean.models import ENCODERS
from rayclean.plugins import Options

DESCRIPTION = "rayclean.json"
"""File beside the weights that names the encoder, its options and the classes."""


HIDDEN_DROPOUT = 0.1
"""Dropout of the hidden layer, where an encoder's options do not name one."""


class Tokenizer:
    """Text to token ids, without padding. Stateless and cheap to build, so that any process can tokenise."""

    pad_id: int = 0
    max_length: int
    most_tokens: int | None = None
    """The greatest `max_length` that its model can read; None: any."""
    vocabulary: int
    """Number of token ids."""
    special_ids: frozenset[int] = frozenset()
    """Ids that stand for no text (padding, [CLS], [SEP]): views leave them in place and never draw them."""

    def __call__(self, texts: Sequence[str]) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """Token ids per text, at least one and cut at `max_length`, and whether the text was cut."""
        raise NotImplementedError

    def tokenize_words(
        self, texts: Sequence[Sequence[str]]
    ) -> tuple[list[npt.NDArray[np.int32]], list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """Texts that are split into words already.

        Returns:
            Token ids per text, as `__call__` gives them; the position among them of each word's first token,
            -1 for a word that has none, because the text was cut before it or it holds nothing but blanks;
            and whether the text was cut.
        """
        raise NotImplementedError

    def identity(self) -> str | None:
        """Hash of all that the token ids depend on, equal for equal tokenizers of different encoders; None: not known, only the
        encoder's options say it.
        """
        return None

    def words(self) -> list[str] | None:
        """Word of each token id; None where ids are hashes."""
        return None


class Inputs(dict[str, Tensor]):
    """What a network reads of R rows: tensors [R, ...] by name (`Encoder.encode` says which), and what the host knows of
    them. A device that is asked for it would have to finish all work before.
    """

    def __init__(self, tensors: Mapping[str, Tensor], lengths: npt.NDArray[np.int64] | None = None):
        super().__init__(tensors)
        self.lengths = lengths
        """[R] tokens of each row; None: they are not known, or rows are no tokens."""


def lengths_of(batch: Mapping[str, Tensor]) -> npt.NDArray[np.int64] | None:
    """[R] tokens of each row of a network's inputs; None where the host does not know them."""
    return batch.lengths if isinstance(batch, Inputs) else None


def pad(tokens: Sequence[npt.NDArray[np.int32]], pad_id: int) -> Inputs:
    """A batch of the network's inputs: `input_ids` and `attention_mask` [B, L], L the longest of the
    batch.
    """
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    return pad_flat(np.concatenate([np.zeros(0, np.int32), *tokens]), lengths, pad_id)


def pad_flat(tokens: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64], pad_id: int) -> Inputs:
    """As `pad`, of rows that stand one after another in `tokens`, `lengths` [B] of them."""
    inside = np.arange(max(1, int(lengths.max(initial=1)))) < lengths[:, None]
    ids = np.full(inside.shape, pad_id, dtype=np.int64)
    ids[inside] = tokens
    mask = inside.astype(np.int64)
    tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return Inputs(tensors, lengths)


def pad_words(first_tokens: Sequence[npt.NDArray[np.int32]]) -> dict[str, Tensor]:
    """What a network that answers for words reads beside `pad`: `first_tokens` [B, T], the position of the
    first token of each word; -1 for words that have none, and behind the last word of a text.
    """
    most = max((len(places) for places in first_tokens), default=1) or 1
    padded = np.full((len(first_tokens), most), -1, dtype=np.int64)
    for row, places in enumerate(first_tokens):
        padded[row, : len(places)] = places
    return {"first_tokens": torch.from_numpy(padded)}


class Encoder(nn.Module):
    """Base of all encoders: a body that embeds a batch of tokens, and a linear head `self.head`.

    A subclass builds its body in `__init__` and calls `self.build_head(dim)`; it overrides `encode` and
    `tokenizer`, and `save` and `load` where its weights are not simply its `state_dict`. One that can answer
    for words (`answers_per_token`) takes `per_token` in `__init__`, too.
    """

    class Config(Options):
        """Options beside `name`."""

        max_length: int = 128
        """Tokens read of each text; the rest is cut and counted."""

    pretrained_tokens: ClassVar[bool] = False
    """Whether there are words (`Tokenizer.words`) and embeddings of them (`token_embeddings`) before any
    training."""
    answers_per_token: ClassVar[bool] = False
    """Whether it can answer for every word of a text, too."""
    default_epochs: int
    """Epochs where the config names none. May depend on the options: read it from the instance."""
    default_learning_rate: float
    """Learning rate where the config names none. May depend on the options: read it from the instance."""

    default_patience: ClassVar[int] = 3
    """Epochs without a lower dev loss after which a small network (`is_small`) stops, where the config names none."""
    default_steps: ClassVar[int | None] = None
    """Steps that are enough for a small network of self-prediction (`training/side_by_side.py`): where `default_epochs` take
    more, fewer epochs are made (three at least), over which the learning rate falls to 0. None: there is no such number."""

    lowered = False
    """Whether the body's weights are held in bfloat16 (`lower`)."""

    def __init__(self, config: Any, num_classes: int, per_token: bool = False):
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.per_token = per_token

    @classmethod
    def tokenizer(cls, config: Any) -> Tokenizer:
        """The tokenizer that belongs to the encoder."""
        raise NotImplementedError

    @classmethod
    def is_frozen(cls, config: Any) -> bool:
        """Whether only the head is trained, so that features may be computed once and cached."""
        return False

    @classmethod
    def is_small(cls, config: Any) -> bool:
        """Whether a step of training takes no longer than making its batch, so that the networks of all folds are
        trained side by side in one process (`training.side_by_side`).
        """
        return cls.is_frozen(config)

    @classmethod
    def seconds_per_text(cls, config: Any) -> float:
        """Rough seconds that a run on a CPU spends on a text: what reading it takes, and ten times as much
        where the whole network is trained. Small work is not worth starting Ray for (`runtime.needs`).
        """
        return 0.1

    def token_embeddings(self) -> npt.NDArray[np.float32] | None:
        """Pre-trained embeddings [vocabulary, D'] of the token ids; None where they are learnt
        from scratch.
        """
        return None

    def keep_tokens(self, used: npt.NDArray[np.int64]) -> None:
        """Announce, before a training, the only token ids that it will meet, sorted. An encoder that learns a
        table of embeddings from scratch trains the rows of these alone; here nothing happens.
        """

    def weights(self) -> dict[str, Tensor]:
        """All weights that `save` writes, by name; those of token ids that `keep_tokens` left
        out included.
        """
        return self.state_dict()

    @property
    def frozen(self) -> bool:
        """`is_frozen` of this network's options."""
        return self.is_frozen(self.config)

    @property
    def reads_features(self) -> bool:
        """Whether it can work on features that were computed once: they are kept per text, not per word."""
        return self.frozen and not self.per_token

    def build_head(self, feature_dim: int, hidden: int = 0, dropout: float = HIDDEN_DROPOUT) -> None:
        """A linear classifier over features; with a `hidden` layer before it, a two-layer perceptron."""
        self.feature_dim = feature_dim
        if hidden:
            self.hidden = nn.Sequential(nn.Linear(feature_dim, hidden), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(hidden or feature_dim, self.num_classes)

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, D] of `input_ids` [B, L] and `attention_mask` [B, L]; a row's do not depend on the
        others. Per token: features [B, T, D] of the words that `first_tokens` [B, T] points to.

        A frozen encoder computes them once and keeps them.
        """
        raise NotImplementedError

    def lower(self) -> None:
        """Hold the body's weights in bfloat16 from now on, for inference: its forward pass then casts nothing, as it would under
        autocast. Features, the head and whatever follows stay in float32. A body that gains nothing by it stays as it is, and
        `lowered` False.
        """

    def of_words(self, states: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """States [B, T, D] of the first token of each word, from those [B, L, D] of all tokens; 0 for words
        without a token (Devlin et al., "BERT", NAACL 2019, section 5.3).
        """
        places = batch["first_tokens"].unsqueeze(-1)
        found = states.gather(1, places.clamp(min=0).expand(-1, -1, states.shape[-1]))
        return found.masked_fill(places < 0, 0.0)

    def refine(self, features: Tensor) -> Tensor:
        """Input of the linear head: the hidden layer [B, hidden] where there is one, else the features [B,
        D].
        """
        refined: Tensor = self.hidden(features) if hasattr(self, "hidden") else features
        return refined

    def classify(self, refined: Tensor) -> Tensor:
        """Logits [B, K] of refined features, or [B, T, K]."""
        logits: Tensor = self.head(refined)
        return logits

    def logits(self, features: Tensor) -> Tensor:
        """Logits [B, K] of features [B, D], cached ones for example; or [B, T, K] of [B, T, D]."""
        return self.classify(self.refine(features))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Refined features and logits [B, K]; a batch that carries cached `features` skips the body."""
        refined = self.refine(batch["features"] if "features" in batch else self.encode(batch))
        return refined, self.classify(refined)

    def save(self, folder: Path, labels: Sequence[str] = (), *, body: bool | None = None) -> None:
        """Write the network so that `rayclean.models.loading.load_encoder` reads it back; safetensors, no
        pickle.

        Args:
            folder: made if it is not there.
            labels: names of the classes in index order, for whoever opens the folder later.
            body: write the body's weights too. None: only if they were trained; a frozen body stays a
                reference to where it came from, so that the heads of K folds take kilobytes.
        """
        self.describe(folder, labels)
        weights = {name: value.contiguous() for name, value in self.weights().items()}
        save_file(weights, folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> Self:
        """Inverse of `save`; `description` is the content of `rayclean.json`."""
        config = cls.Config(**description["options"])
        per_token = {"per_token": True} if description["per_token"] else {}
        network = cls(config, description["num_classes"], **per_token)
        network.load_state_dict(load_file(folder / "weights.safetensors"))
        return network

    def describe(self, folder: Path, labels: Sequence[str]) -> None:
        """Write `rayclean.json`."""
        target = f"{type(self).__module__}:{type(self).__qualname__}"
        names = {target: name for name, target in ENCODERS.items()}
        description = {
            "encoder": names.get(target, target),
            "options": self.config.model_dump(mode="json"),
            "num_classes": self.num_classes,
            "per_token": self.per_token,
            "feature_dim": self.feature_dim,
            "labels": list(labels),
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).write_text(
            json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8"
        )
