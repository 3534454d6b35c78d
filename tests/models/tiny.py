"""A tiny randomly initialised BERT with a small WordPiece vocabulary: nothing is downloaded."""

from pathlib import Path

import torch

from tests.toy import SHARED, TOPICS


def write(folder: Path, max_positions: int = 64) -> str:
    """Write model and tokenizer in Hugging Face layout."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

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
    config = BertConfig(
        vocab_size=len(names), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=max_positions,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)
