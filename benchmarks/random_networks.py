"""Transformers of well-known shapes with random weights, and texts for them: nothing is downloaded, and rates are the same.

folder = write_network(Path("networks"), "bert-base")
encoder = {"name": "transformer", "model": folder, "trainable": "all"}
"""

from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

SHAPES: dict[str, dict[str, int]] = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}  # fmt: skip
VOCABULARY = {"bert-base": 30522, "minilm": 30522, "tiny": 400}
"""Token ids of each shape."""
LONGEST = 512
"""Positions, as of BERT."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FURTHER = 100
"""Of the words, one in so many is also a piece that goes on with another word."""


def words(count: int) -> list[str]:
    """Distinct words of two and three syllables, the short ones first."""
    syllables = ["".join(pair) for pair in product("bcdfghjklmnprstvwxyz", "aeiou")]
    longer = (product(syllables, repeat=parts) for parts in (2, 3))
    return ["".join(word) for word in islice((word for each in longer for word in each), count)]


def vocabulary(shape: str) -> tuple[list[str], list[str]]:
    """Whole words, and pieces that go on with a word."""
    letters = [chr(97 + i) for i in range(26)]
    room = VOCABULARY[shape] - len(SPECIAL) - 2 * len(letters)
    whole = words(room - room // FURTHER)
    return whole, [f"##{word}" for word in whole[: room // FURTHER]]


def write_network(folder: Path, shape: str, seed: int = 0) -> str:
    """Write a model of a shape and its tokenizer in Hugging Face layout, if they are not there; returns their folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from rayclean.models.pretrained import without_noise

    place = folder / shape
    if (place / "config.json").exists():
        return str(place)
    whole, pieces = vocabulary(shape)
    letters = [f"{mark}{chr(97 + i)}" for i in range(26) for mark in ("", "##")]
    names = [*SPECIAL, *letters, *whole, *pieces]
    backend = Tokenizer(
        models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=LONGEST,
    ).save_pretrained(place)  # fmt: skip
    torch.manual_seed(seed)
    config: dict[str, Any] = {"vocab_size": len(names), "max_position_embeddings": LONGEST, **SHAPES[shape]}
    with without_noise():
        BertModel(BertConfig(**config)).save_pretrained(place)
    return str(place)


def random_texts(shape: str, rows: int, seed: int, median: int = 40) -> list[str]:
    """Texts of the shape's words, Zipf-distributed; lengths log-normal as in news teasers. One word in ten is of two
    pieces.
    """
    whole, pieces = vocabulary(shape)
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(median), 0.5, rows), 3, 300).astype(int)
    found = []
    for length in lengths:
        ranks = np.minimum(rng.zipf(1.3, length), len(whole)) - 1
        doubled = rng.random(length) < 0.1
        ends = rng.integers(max(len(pieces), 1), size=length)
        row = [
            whole[rank] + (pieces[end][2:] if two and pieces else "")
            for rank, two, end in zip(ranks, doubled, ends, strict=True)
        ]
        found.append(" ".join(row))
    return found
