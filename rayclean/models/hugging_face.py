"""A trained network as a model of Hugging Face: `transformers.pipeline("text-classification", folder)` runs it.

The folder of a network gets `config.json` with the names of the classes, `model.safetensors` and the tokenizer; the body
stands nowhere else, and rayclean reads it back from there. Only what comes out equal is written: the model is compared
with the network before. `PIPELINE` in `rayclean.json` names the pipeline, or there is a `REASON` why there is none.
"""

import copy
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayclean.models.architectures import ADDED, ARCHITECTURES, Architecture, activation, norms, scale_states
from rayclean.models.base import DESCRIPTION, Encoder, pad, pad_words
from rayclean.models.ensemble import Ensemble
from rayclean.models.pooling_layer import STATES_FACTOR, Head, write_normed_head, write_pooling_layer
from rayclean.models.pretrained import pretrained_tokenizer, without_noise
from rayclean.models.transformer import TransformerEncoder
from rayclean.schema import FormName

logger = logging.getLogger(__name__)

PIPELINE, REASON = "pipeline", "no_pipeline"
"""Keys of `rayclean.json`."""
GREATEST_DIFFERENCE = 1e-5
"""Greatest difference of a probability between the network and the model."""
_PROBE_LENGTHS = (1, 2, 5, 17, 60)
_PROBES = 4
"""Of each length."""


class _NotExpressibleError(Exception):
    """No architecture of `transformers` computes what the network does; the message says what stands against it."""


def write_hugging_face(network: Encoder, folder: Path, names: Sequence[str], form: FormName) -> None:
    """Turn the folder of a network into a model of Hugging Face, if there is one that is equal to the network, and say in
    `rayclean.json` whether it is one. The networks of an ensemble are turned one by one: their mean is no model.

    Args:
        network: trained.
        folder: where it was saved with its body.
        names: of the numbers that its head gives, in index order.
        form: of the labels that it predicts.
    """
    if isinstance(network, Ensemble):
        members = list(network.members)
        for number, member in enumerate(members, 1):
            assert isinstance(member, Encoder)
            write_hugging_face(member, folder / f"member-{number}", names, form)
        _note(
            folder, {REASON: f"it is the mean of {len(members)} networks, each of which is in a sub-folder"}
        )
        return
    training = network.training
    network.eval()
    try:
        if not isinstance(network, TransformerEncoder):
            kind = type(network).__name__.removesuffix("Encoder")
            raise _NotExpressibleError(f"transformers has no {kind}")
        with torch.no_grad():
            model: Any = _built(network, names, form)
            _check_equal(network, model, form)
    except _NotExpressibleError as reason:
        _note(folder, {REASON: str(reason)})
        return
    except (
        Exception
    ) as error:  # of an architecture that is not what its name says: the trained network is not lost over it
        logger.warning(
            "train/model is not written as a model of Hugging Face: %s: %s", type(error).__name__, error
        )
        _note(folder, {REASON: f"writing it failed with {type(error).__name__}: {error}"})
        return
    finally:
        network.train(training)
    with without_noise():
        model.save_pretrained(folder)
    tokenizer = pretrained_tokenizer(network.config)
    tokenizer.model_max_length = (
        network.config.max_length
    )  # `truncation=True` cuts where the network was trained to
    tokenizer.save_pretrained(folder)
    _note(folder, {PIPELINE: "token-classification" if form == "tags" else "text-classification"})
    shutil.rmtree(folder / "encoder")  # its weights are in model.safetensors; nothing reads both


def _note(folder: Path, found: dict[str, str]) -> None:
    description = json.loads((folder / DESCRIPTION).read_text("utf-8")) | found
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False), "utf-8")


def _built(network: TransformerEncoder, names: Sequence[str], form: FormName) -> nn.Module:
    """The model on the CPU, not compared yet."""
    from transformers import AutoModelForTokenClassification

    body, options = network.open_body(), network.config
    if options.normalize:
        raise _NotExpressibleError(
            "no classifier of transformers divides features by their length (encoder.normalize)"
        )
    described = copy.deepcopy(body.config)
    described.id2label, described.label2id = dict(enumerate(names)), {name: n for n, name in enumerate(names)}
    head = _head(network)
    if form == "tags":
        if head.second is not None:
            raise _NotExpressibleError(
                "token classifiers of transformers have no hidden layer (encoder.hidden)"
            )
        model = _with_body(AutoModelForTokenClassification, described, body)
        classifier = getattr(model, "classifier", None)
        if not isinstance(classifier, nn.Linear):
            raise _NotExpressibleError(
                f"the token classifier of {described.model_type!r} is no linear layer alone"
            )
        classifier.load_state_dict(head.first.state_dict())
        return model
    described.problem_type = (
        "multi_label_classification" if form == "classes" else "single_label_classification"
    )
    if described.model_type == "modernbert":
        return _of_modernbert(network, body, described, head)
    architecture = ARCHITECTURES.get(described.model_type)
    if architecture is None:
        raise _NotExpressibleError(
            f"the architecture {described.model_type!r} is not among those that rayclean can write: "
            f"{', '.join([*ARCHITECTURES, 'modernbert'])}"
        )
    if architecture.units(head.classes) > described.hidden_size:
        raise _NotExpressibleError(
            f"{head.classes} classes are too many for states of {described.hidden_size} numbers"
        )
    written = _of_first_token if options.pooling == "cls" else _of_mean
    return written(network, body, described, architecture, head)


def _of_first_token(
    network: TransformerEncoder, body: nn.Module, described: Any, architecture: Architecture, head: Head
) -> nn.Module:
    """A classifier of the first token's state."""
    from transformers import AutoModelForSequenceClassification

    if head.second is not None and (
        architecture.activation != "gelu" or head.first.out_features > described.hidden_size
    ):
        raise _NotExpressibleError(
            f"the classifier of {described.model_type!r} has no hidden layer with a GELU (encoder.hidden) of this width on "
            "the first token (encoder.pooling)"
        )
    model = _with_body(AutoModelForSequenceClassification, described, body)
    if head.second is None:
        architecture.write_linear(model, head.first.weight, head.first.bias)
    else:
        architecture.write_two_layers(model, head.first, head.second)
    return model


def _of_mean(
    network: TransformerEncoder, body: nn.Module, described: Any, architecture: Architecture, head: Head
) -> nn.Module:
    """A classifier of the mean over tokens, which a layer more brings to the first one."""
    from transformers import AutoModelForSequenceClassification

    if head.second is not None and activation(described) != "gelu":
        raise _NotExpressibleError(
            f"layers of this body compute {activation(described)!r} where the head has a GELU"
        )
    layer_size = (
        described.intermediate_size if hasattr(described, "intermediate_size") else described.hidden_dim
    )
    size = described.hidden_size
    if not head.fits(size, layer_size):
        raise _NotExpressibleError(
            f"a head of {head.first.out_features} units and {head.classes} classes does not fit into states of {size} numbers"
        )
    described.num_hidden_layers += 1
    setattr(described, ADDED, True)
    model = _with_body(AutoModelForSequenceClassification, described, body)
    base: Any = model.base_model
    norm = norms(base, described.model_type)[-2]
    scale_states(norm, STATES_FACTOR)
    added = base.get_submodule(architecture.layers)[-1]
    write_pooling_layer(added, architecture.names, head, _longest(network, head), float(norm.eps))
    architecture.write_linear(model, head.reader(size), torch.zeros(head.classes))
    return model


def _of_modernbert(network: TransformerEncoder, body: nn.Module, described: Any, head: Head) -> nn.Module:
    """A classifier of ModernBERT, which pools by itself and puts a LayerNorm before its last layer."""
    from transformers import AutoModelForSequenceClassification

    if head.second is not None or not head.fits(described.hidden_size, 0):
        raise _NotExpressibleError(
            "the classifier of 'modernbert' has a LayerNorm where the hidden layer (encoder.hidden) ends, or too few numbers"
        )
    described.classifier_pooling = network.config.pooling
    described.classifier_bias, described.classifier_activation = True, "linear"
    model: Any = _with_body(AutoModelForSequenceClassification, described, body)
    write_normed_head(model.head.dense, model.head.norm, model.classifier, head, _longest(network, head))
    return model  # type: ignore[no-any-return]


def _longest(network: TransformerEncoder, head: Head) -> float:
    """Greatest length of what the head computes of random texts."""
    return float(head.lengths(network.encode(_probes(network, per_token=False)).cpu()).max())


def _head(network: TransformerEncoder) -> Head:
    """The layers after the body, on the CPU, in float32."""
    last = copy.deepcopy(network.head).float().cpu()
    if not hasattr(network, "hidden"):
        return Head(last)
    first = copy.deepcopy(network.hidden[0]).float().cpu()
    assert isinstance(first, nn.Linear)
    return Head(first, last)


def _with_body(factory: Any, described: Any, body: nn.Module) -> nn.Module:
    """A fresh classifier of an architecture, with the weights of a body."""
    try:
        with torch.random.fork_rng(devices=[]), without_noise():
            model: Any = factory.from_config(described)
    except (ValueError, KeyError) as error:
        raise _NotExpressibleError(f"transformers has no classifier of {described.model_type!r}") from error
    weights = {name: value.detach().float().cpu() for name, value in body.state_dict().items()}
    loaded = model.base_model.load_state_dict(weights, strict=False)
    assert not loaded.unexpected_keys
    return model.float().eval()  # type: ignore[no-any-return]


def _probes(network: TransformerEncoder, per_token: bool) -> dict[str, Tensor]:
    """Inputs of random tokens, of several lengths, padded."""
    tokenizer = network.tokenizer(network.config)
    empty = tokenizer([""])[0][0]
    begin, end = empty[:1], empty[1:] if len(empty) > 1 else empty[:0]
    ordinary = np.setdiff1d(np.arange(tokenizer.vocabulary), [*tokenizer.special_ids, tokenizer.pad_id])
    rng = np.random.default_rng(0)
    lengths = [
        min(length, tokenizer.max_length - len(empty)) for length in _PROBE_LENGTHS for _ in range(_PROBES)
    ]
    texts = [
        np.concatenate([begin, rng.choice(ordinary, length), end]).astype(np.int32) for length in lengths
    ]
    batch = pad(texts, tokenizer.pad_id)
    if per_token:
        batch |= pad_words([np.arange(1, 1 + length, dtype=np.int32) for length in lengths])
    device = network.head.weight.device
    return {name: value.to(device) for name, value in batch.items()}


def _check_equal(network: TransformerEncoder, model: nn.Module, form: FormName) -> None:
    """Compare the probabilities that both give."""
    batch = _probes(network, per_token=form == "tags")
    expected = network.logits(network.encode(batch)).float().cpu()
    found = model(input_ids=batch["input_ids"].cpu(), attention_mask=batch["attention_mask"].cpu()).logits
    if form == "tags":
        places = batch["first_tokens"].cpu()
        found = found.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, found.shape[-1]))
        read = places >= 0
        expected, found = expected[read], found[read]
    squashed = torch.sigmoid if form == "classes" else lambda logits: torch.softmax(logits, -1)
    difference = float((squashed(found) - squashed(expected)).abs().max())
    if not difference <= GREATEST_DIFFERENCE:  # NaN, too
        raise _NotExpressibleError(
            f"probabilities of the model would differ by {difference:.1g} from the network's"
        )
