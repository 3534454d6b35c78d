"""Inputs of networks (tokens or features of all examples), memory-mapped from a cache on this node.

Inputs are written once per node to flat NumPy files (values, offsets, sorted ids) under a name derived from
their sources, and opened read-only by every worker of the node, so K folds and W workers share one copy in
the page cache. In flat files, unlike in Arrow, a random batch is a few slices of one array.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch

from rayclean.cache import cached_inputs
from rayclean.config import Plugin
from rayclean.errors import ArtifactError, DataError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.functional.lookup import lookup
from rayclean.models import ENCODERS
from rayclean.models.base import Inputs, pad_flat, pad_words
from rayclean.schema import matrix
from rayclean.training.job import folder_key
from rayclean.training.token_shards import TokenShards

_VERSION = 1
"""Version of the format of features on a node, part of a cache's name."""
_FILES = {"tokens": ("values.bin", "offsets.npy"), "first_tokens": ("first_tokens.bin", "word_offsets.npy")}
"""Names of the file of all numbers of a column of token shards, one after another, and of that of where texts begin in it."""

ROWS_AT_ONCE = 1 << 16
"""Number of rows whose tokens are in memory at once in `TokenInputs.used`."""

Rows = npt.NDArray[np.int64]


class NetworkInputs(Protocol):
    """Interface of the inputs of networks, by row."""

    truncated: int
    """Number of texts cut at the encoder's `max_length`."""

    def rows(self, ids: Rows) -> Rows:
        """Row of every id.

        Raises:
            DataError: an id is missing.
        """
        ...

    def batch(self, rows: Rows) -> Inputs:
        """Tensors [B, ...] of the given rows, by name."""
        ...

    def lengths(self, rows: Rows) -> Rows | None:
        """Number of tokens per row; None if all rows have the same size."""
        ...


def open_inputs(
    examples: str, features: str | None, encoder: Plugin, per_token: bool = False
) -> NetworkInputs:
    """Tokens or features of all examples from this node's cache, made first if it is not there; `per_token`:
    the tokens of texts that are split into words, for networks that answer for words.
    """
    if features is not None:
        source = Folder(features)
        key = fingerprint(_VERSION, source.url(), folder_key(features))
        return FeatureInputs(cached_inputs(f"features-{key}", lambda folder: _write_features(source, folder)))
    return open_words(examples, encoder) if per_token else open_tokens(examples, encoder)


def reads_features(encoder: Plugin, per_token: bool) -> bool:
    """Whether only the layers after an encoder's body are trained, on features that were computed once. These
    are kept per text: a network that answers for every word runs its body in every step, frozen or not.
    """
    cls, options = ENCODERS.checked(encoder)
    return cls.is_frozen(options) and not per_token


def open_tokens(examples: str, encoder: Plugin, rewrite: str | None = None) -> "TokenInputs":
    """Open the tokens of all examples for an encoder; with `rewrite`, those of the rewritten texts. Arguments as in
    `TokenShards`.
    """
    return TokenInputs(*_cached_tokens(TokenShards(examples, encoder, rewrite=rewrite)))


def open_words(examples: str, encoder: Plugin) -> "WordInputs":
    """Tokens of all examples, which have a column `tokens` (list of words), as an encoder reads their words."""
    return WordInputs(*_cached_tokens(TokenShards(examples, encoder, per_token=True)))


def _cached_tokens(shards: TokenShards) -> tuple[Path, int]:
    """The folder of the tokens on this node, and the token id of padding."""
    folder = cached_inputs(f"tokens-{shards.key}", lambda folder: _write_tokens(shards, folder))
    return folder, shards.tokenizer.pad_id


class _Mapped:
    """Memory-mapped rows with their ids."""

    def __init__(self, folder: Path):
        self.sorted_ids = np.load(folder / "ids.npy", mmap_mode="r")
        self.sorted_rows = np.load(folder / "rows.npy", mmap_mode="r")
        meta = json.loads((folder / "meta.json").read_text())
        self.truncated: int = meta["truncated"]
        self.name: str = meta["source"]

    def rows(self, ids: Rows) -> Rows:
        """Row of every id."""
        position, found = lookup(self.sorted_ids, ids)
        if not found.all():
            raise DataError(
                f"{self.name} lacks some of the {len(ids)} examples of the job: run the verb that writes it again"
            )
        return np.asarray(self.sorted_rows[position])


class TokenInputs(_Mapped):
    """Token ids of all rows, which differ in length, in one array."""

    def __init__(self, folder: Path, pad_id: int):
        super().__init__(folder)
        self.offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self.tokens = np.memmap(folder / "values.bin", dtype=np.int32, mode="r")
        self.pad_id = pad_id

    def batch(self, rows: Rows) -> Inputs:
        """Tensors `input_ids` and `attention_mask` [B, L], as of `models.base.pad`."""
        return pad_flat(*self.flat(rows), self.pad_id)

    def flat(self, rows: Rows) -> tuple[npt.NDArray[np.int32], Rows]:
        """Token ids of the given rows, one after another, and how many of them are each row's; without a look at each row."""
        lengths = self.lengths(rows)
        return self.tokens[concatenated_ranges(self.offsets[rows], lengths)], lengths

    def tokens_of(self, rows: Rows) -> list[npt.NDArray[np.int32]]:
        """Token ids of each row, without padding."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        return [self.tokens[start:end] for start, end in zip(starts, ends, strict=True)]

    def used(self, rows: Rows) -> Rows:
        """Sorted distinct token ids of the given rows."""
        occurs = np.zeros(0, dtype=np.bool_)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            tokens = np.concatenate(self.tokens_of(rows[start : start + ROWS_AT_ONCE]))
            occurs = np.pad(occurs, (0, max(0, int(tokens.max(initial=-1)) + 1 - len(occurs))))
            occurs[tokens] = True
        return np.flatnonzero(occurs)

    def lengths(self, rows: Rows) -> Rows:
        """Number of tokens per row."""
        return np.asarray(self.offsets[rows + 1] - self.offsets[rows])


class WordInputs(TokenInputs):
    """Token ids of texts that are split into words, and where the words begin."""

    def __init__(self, folder: Path, pad_id: int):
        super().__init__(folder, pad_id)
        self.word_offsets = np.load(folder / "word_offsets.npy", mmap_mode="r")
        self.first_tokens = np.memmap(folder / "first_tokens.bin", dtype=np.int32, mode="r")

    def batch(self, rows: Rows) -> Inputs:
        """`input_ids` and `attention_mask` [B, L], `first_tokens` [B, T]."""
        starts, ends = self.word_offsets[rows], self.word_offsets[rows + 1]
        places = [self.first_tokens[start:end] for start, end in zip(starts, ends, strict=True)]
        batch = super().batch(rows)
        batch.update(pad_words(places))
        return batch

    def words(self, rows: Rows) -> Rows:
        """Words per row."""
        return np.asarray(self.word_offsets[rows + 1] - self.word_offsets[rows])


def concatenated_ranges(starts: Rows, lengths: Rows) -> Rows:
    """The numbers of several ranges, one range after another.

    >>> concatenated_ranges(np.array([10, 3]), np.array([2, 3]))
    array([10, 11,  3,  4,  5])
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


class FeatureInputs(_Mapped):
    """Features of a frozen encoder, one row per example."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        dim = json.loads((folder / "meta.json").read_text())["dim"]
        self.features = np.memmap(folder / "values.bin", dtype=np.float32, mode="r").reshape(-1, dim)

    def batch(self, rows: Rows) -> Inputs:
        """Tensor `features` [B, D]."""
        return Inputs({"features": torch.from_numpy(np.asarray(self.features[rows]))})

    def lengths(self, rows: Rows) -> None:
        """None, since all rows have the same size."""


def _write_tokens(shards: TokenShards, folder: Path) -> dict[str, Any]:
    """Put shards, one after another, into files as flat as memory is; only those that nobody made before are tokenised here."""
    ids, truncated = [], 0
    lengths: dict[str, list[Rows]] = {}
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / _FILES[name][0], "wb")) for name in shards.lists}
        for table in shards.tables():
            ids.append(table["example_id"].to_numpy())
            truncated += pc.sum(table["cut"]).as_py() or 0
            for name, file in files.items():
                column = table[name].combine_chunks()
                lengths.setdefault(name, []).append(column.value_lengths().to_numpy())
                file.write(column.flatten().to_numpy())
    for name, each in lengths.items():
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(each), dtype=np.int64)])
        np.save(folder / _FILES[name][1], offsets)
    _write_ids(ids, folder)
    return {"truncated": truncated, "source": Folder(shards.examples).path()}


def _write_features(source: Folder, folder: Path) -> dict[str, Any]:
    ids, dim = [], 0
    with open(folder / "values.bin", "wb") as values:
        for shard in source.shards():
            table = source.read_table(shard, columns=["example_id", "features"])
            features = matrix(table["features"])
            if not np.isfinite(features).all():
                raise DataError(
                    f"{source.url(shard)}: features are not finite; run predict again with precision = 'float32'"
                )
            ids.append(table["example_id"].to_numpy())
            dim = features.shape[1]
            values.write(np.ascontiguousarray(features).tobytes())
    if not ids:
        raise ArtifactError(f"{source.url()} holds no shards of features: run predict first")
    _write_ids(ids, folder)
    return {"truncated": 0, "source": source.path(), "dim": dim}


def _write_ids(ids: Sequence[Rows], folder: Path) -> None:
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    np.save(folder / "ids.npy", every[order])
    np.save(folder / "rows.npy", order)
