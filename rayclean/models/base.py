"""The encoder seam: encode -> features, classify -> logits.

Both halves are apart because methods mix features (EmbMix), compare them (contrastive losses, retrieval) or cache
them (a frozen encoder computes them once, and only the head is trained).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rayclean.plugins import Options


class Tokenizer:
    """Text to token ids, without padding. Stateless and cheap to build, so that any process can tokenise."""

    pad_id: int = 0
    max_length: int

    def __call__(self, texts: Sequence[str]) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]:
        """Token ids per text, cut at `max_length`, and whether the text was cut."""
        raise NotImplementedError


def pad(tokens: Sequence[npt.NDArray[np.int32]], pad_id: int) -> dict[str, Tensor]:
    """A batch of the network's inputs: `input_ids` [B, L] and `attention_mask` [B, L], L the longest of the batch."""
    longest = max((len(t) for t in tokens), default=1) or 1
    ids = np.full((len(tokens), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(tokens), longest), dtype=np.int64)
    for row, token_ids in enumerate(tokens):
        ids[row, : len(token_ids)] = token_ids
        mask[row, : len(token_ids)] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


class Encoder(nn.Module):
    """Base of all encoders: a body that embeds a batch of tokens, and a linear head `self.head`.

    A subclass builds its body in `__init__` and calls `self.build_head(dim)`; it overrides `encode` and `tokenizer`.
    """

    class Config(Options):
        """Options beside `name`."""

        max_length: int = 128
        """Tokens read of each text; the rest is cut and counted."""

    default_epochs: ClassVar[int]
    default_learning_rate: ClassVar[float]

    def __init__(self, config: Any, num_classes: int):
        super().__init__()
        self.config = config
        self.num_classes = num_classes

    @classmethod
    def tokenizer(cls, config: Any) -> Tokenizer:
        """The tokenizer that belongs to the encoder."""
        raise NotImplementedError

    @property
    def frozen(self) -> bool:
        """Whether only the head is trained, so that features may be computed once and cached."""
        return False

    @property
    def feature_dim(self) -> int:
        """D of `encode`."""
        return self.head.in_features

    def build_head(self, feature_dim: int) -> None:
        """A linear classifier over features."""
        self.head = nn.Linear(feature_dim, self.num_classes)

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, D] of `input_ids` [B, L] and `attention_mask` [B, L]."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Logits [B, K] of features [B, D]."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, D] and logits [B, K]; a batch that carries cached `features` skips the body."""
        features = batch["features"] if "features" in batch else self.encode(batch)
        return features, self.classify(features)

    def save(self, folder: Path) -> None:
        """Write the network and its tokenizer in Hugging Face layout where it has one; `load_encoder` reads it back."""
        raise NotImplementedError
