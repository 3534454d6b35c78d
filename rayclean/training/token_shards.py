"""Tokens of all examples for an encoder, shard by shard, in a folder that every node reads.

They lie beside the examples, which `load` replaces together with them, and are made on all cores before the workers of a
training are reserved (`runtime.tokens`). A shard that is there is whole: what was finished before a kill or on a lost node is
not made again, later trainings on the same examples find it, and so does a node that joins.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rayclean.config import Plugin
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.models import ENCODERS
from rayclean.models.base import Tokenizer
from rayclean.training.augment import BackTranslation
from rayclean.training.job import folder_key

_VERSION = 1
"""Version of the format of tokens, in shards and on a node, part of their name."""


@dataclass(frozen=True)
class TokenShards:
    """The tokens of a folder of examples for one encoder; small to send."""

    examples: str
    """Folder of example shards."""
    encoder: Plugin
    """Encoder whose tokenizer is used."""
    per_token: bool = False
    """Whether texts are read as they are split into words (column `tokens` of the examples)."""
    rewrite: str | None = None
    """Function `"package.module:function"` that rewrites texts (`training.augment.BackTranslation`); None: they are read as
    they are."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The encoder's tokenizer."""
        options = ENCODERS.checked(self.encoder)[1]
        return _tokenizer(self.encoder.model_dump_json(), fingerprint(options.identity()))

    @cached_property
    def key(self) -> str:
        """Hash of what the tokens depend on."""
        encoder = [self.encoder.name, ENCODERS.checked(self.encoder)[1].identity()]
        how = "words" if self.per_token else self.rewrite
        return _key(self.examples, self.tokenizer.identity() or encoder, how)

    @property
    def lists(self) -> tuple[str, ...]:
        """Columns of a shard that hold a list of numbers per text: token ids, and of texts that are split into words the place
        of each word's first token.
        """
        return ("tokens", "first_tokens") if self.per_token else ("tokens",)

    @property
    def folder(self) -> Folder:
        """Where the shards lie, under the names of those of the examples."""
        return _folder(self.examples, self.key)

    def missing(self) -> list[str]:
        """Names of the shards that are not made yet."""
        made = set(self.folder.shards())
        return [shard for shard in Folder(self.examples).shards() if shard not in made]

    def keep(self, shard: str) -> int:
        """Make a shard and write it; returns the number of its texts."""
        table = self.make(shard)
        self.folder.write_table(table, shard)
        return len(table)

    def tables(self) -> Iterator[pa.Table]:
        """All shards in their order; those that are missing are made, and not written."""
        folder, missing = self.folder, set(self.missing())
        for shard in Folder(self.examples).shards():
            yield self.make(shard) if shard in missing else folder.read_table(shard)

    def make(self, shard: str) -> pa.Table:
        """Tokenise the texts of a shard: columns `example_id`, `cut` and `lists`."""
        tokenizer = self.tokenizer
        column = "tokens" if self.per_token else "text"
        table = Folder(self.examples).read_table(shard, columns=["example_id", column])
        texts, found = table[column].to_pylist(), {"example_id": table["example_id"]}
        if self.per_token:
            *lists, cut = tokenizer.tokenize_words(texts)
        else:
            *lists, cut = tokenizer(texts if self.rewrite is None else BackTranslation(self.rewrite)(texts))
        found |= {name: _list_column(each) for name, each in zip(self.lists, lists, strict=True)}
        return pa.table({**found, "cut": cut})


class KeptTokens:
    """The tokens of the texts of one shard."""

    def __init__(self, shard: pa.Table):
        self.cut = shard["cut"].to_numpy()
        columns = [
            shard[name].combine_chunks() for name in shard.column_names if name not in ("example_id", "cut")
        ]
        self.lists = [(column.values.to_numpy(), column.offsets.to_numpy()) for column in columns]

    def __call__(self, rows: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        """What the tokenizer says of the texts in some rows of the shard."""
        lists = (
            [flat[start:end] for start, end in zip(offsets[rows], offsets[rows + 1], strict=True)]
            for flat, offsets in self.lists
        )
        return *lists, self.cut[rows]


def kept_tokens(examples: str, tokenizer: Tokenizer, per_token: bool) -> Callable[[str], KeptTokens | None]:
    """What a training has made of each shard of examples with an equal tokenizer; None of a shard: nothing."""
    identity = tokenizer.identity()
    if identity is None:
        return lambda shard: None
    folder = _folder(examples, _key(examples, identity, "words" if per_token else None))
    made = set(folder.shards())
    return lambda shard: KeptTokens(folder.read_table(shard)) if shard in made else None


def _key(examples: str, tokenizer: Any, how: str | None) -> str:
    return fingerprint(_VERSION, Folder(examples).url(), folder_key(examples), tokenizer, how)


def _folder(examples: str, key: str) -> Folder:
    return Folder(Folder(examples).url().rstrip("/").rpartition("/")[0]).sub("tokens", key)


@functools.lru_cache(maxsize=4)
def _tokenizer(encoder: str, files: str) -> Tokenizer:
    """The tokenizer of an encoder, which is read from files, once per process; `files` changes with these."""
    cls, options = ENCODERS.checked(Plugin.model_validate_json(encoder))
    found: Tokenizer = cls.tokenizer(options)
    return found


def _list_column(lists: Sequence[npt.NDArray[np.int32]]) -> pa.Array:
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, np.concatenate([np.zeros(0, np.int32), *lists]).astype(np.int32))
