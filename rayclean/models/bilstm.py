"""A bidirectional LSTM trained from scratch: the weak network of NoiseAL, and a fast one anywhere.

One layer, hidden size 128 per direction, mean and max over time, Adam 1e-3. Words are hashed
(`models/hashed_words.py`), so no vocabulary is fitted. Per token the features of a word are its states.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import invert_permutation, pack_padded_sequence, pad_packed_sequence

from rayclean.models.base import Encoder, lengths_of
from rayclean.models.hashed_words import PAD, RESERVED, WordEncoder, WordTokenizer


class BiLSTMEncoder(WordEncoder):
    """Hashed words -> embeddings -> BiLSTM -> [mean; max] over time, D = 4 x hidden; per token -> the states of
    each word, D = 2 x hidden.
    """

    class Config(Encoder.Config):
        """Options beside `name`."""

        max_length: int = Field(128, ge=1)
        """Words read of each text; the rest is cut and counted."""
        buckets: int = Field(32768, gt=RESERVED)
        """Rows of the embedding table."""
        embedding: int = Field(128, ge=1)
        """Size of a word's embedding."""
        hidden: int = Field(128, ge=1)
        """Size of the LSTM's state, per direction."""
        dropout: float = Field(0.1, ge=0, lt=1)
        """Dropout of embeddings and features."""

    answers_per_token = True
    default_epochs = 10
    default_learning_rate = 1e-3

    def __init__(self, config: Any, num_classes: int, per_token: bool = False):
        super().__init__(config, num_classes, per_token)
        self.embedding = nn.Embedding(config.buckets, config.embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.build_head((2 if per_token else 4) * config.hidden)

    @classmethod
    def tokenizer(cls, config: Any) -> WordTokenizer:
        """Hashed words."""
        return WordTokenizer(config.buckets, config.max_length)

    @classmethod
    def seconds_per_text(cls, config: Any) -> float:
        """The time of a small recurrent network."""
        return 3e-3

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, 4 x hidden], or [B, T, 2 x hidden]."""
        mask, known = batch["attention_mask"], lengths_of(batch)
        lengths = mask.sum(1)
        on_host = lengths.cpu() if known is None else torch.from_numpy(known)
        embedded = self.dropout(self.embedding(self.rows(batch["input_ids"])))
        # Packed, or the backward direction of a short text would start on its padding. Sorted here: by itself
        # `pack_padded_sequence` would wait until the order has been copied.
        descending, order = torch.sort(on_host, descending=True)
        order = order.to(embedded.device, non_blocking=True)
        packed = pack_padded_sequence(embedded.index_select(0, order), descending, batch_first=True)
        # Always in its own precision: on GPUs autocast gives an LSTM float16 whatever was asked for, in which small gradients
        # vanish; CPUs without bfloat16 of their own refuse it, or take ten times as long.
        with torch.autocast(embedded.device.type, enabled=False):
            states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        inverse = invert_permutation(order)
        assert inverse is not None, "None is returned for None alone"
        states = states.index_select(0, inverse)
        if self.per_token:
            found: Tensor = self.dropout(self.of_words(states, batch))
            return found
        inside = mask.unsqueeze(-1).bool()
        mean = states.sum(1) / lengths.unsqueeze(-1)  # padded positions are zero
        highest = states.masked_fill(~inside, -torch.inf).amax(1)
        refined: Tensor = self.dropout(torch.cat([mean, highest], dim=-1))
        return refined
