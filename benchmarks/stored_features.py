"""A frozen encoder whose features were computed before: a text begins with the number of its row in a file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayclean.models.base import Encoder, Tokenizer


class RowNumbers(Tokenizer):
    """The first word of a text, which is a number."""

    max_length = 1

    def __call__(self, content: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """One token per text."""
        numbers = [np.array([int(text.partition(" ")[0])], dtype=np.int32) for text in content]
        return numbers, np.zeros(len(content), dtype=np.bool_)


class StoredFeatures(Encoder):
    """Rows of an array [N, D]."""

    class Config(Encoder.Config):
        """Options beside `name`."""

        file: str
        """`.npy` file with the features."""

    default_epochs = 10
    default_learning_rate = 5e-3

    def __init__(self, config: Any, num_classes: int):
        super().__init__(config, num_classes)
        self.stored = np.load(config.file, mmap_mode="r")
        self.build_head(self.stored.shape[1])

    @classmethod
    def tokenizer(cls, config: Any) -> RowNumbers:
        """Numbers of rows."""
        return RowNumbers()

    @classmethod
    def is_frozen(cls, config: Any) -> bool:
        """Always."""
        return True

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """The rows that the tokens name."""
        return torch.from_numpy(self.stored[batch["input_ids"][:, 0].numpy()])
