"""A tiny randomly initialised encoder, BERT unless another is named, with a small WordPiece vocabulary: nothing is
downloaded.
"""

from pathlib import Path
from typing import Any

import torch

from tests.toy import SHARED, TOPICS

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def write(folder: Path, max_positions: int = 64, architecture: str = "bert", **options: Any) -> str:
    """Write model and tokenizer in Hugging Face layout; `options` are those of the model's configuration."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    words = sorted({word for topic in TOPICS.values() for word in topic} | set(SHARED))
    letters = [f"{mark}{chr(97 + i)}" for i in range(26) for mark in ("", "##")]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(w for w in words if len(w) > 1)]
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=max_positions,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    # RoBERTa counts positions from the number of its padding on, and all need that number here
    positions = max_positions if architecture == "bert" else max_positions + 2
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(names),
        max_position_embeddings=positions,
        pad_token_id=0,
        **(SIZE | options),
    )
    AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)
