"""The training loop that a careful person writes without rayclean, for `train_overhead.py` to be compared with.

The same encoders, batches, precision and `functional/` losses, AdamW, clipping, linear schedule, and nothing else: no
per-example state, no ids, no collectives, no checkpoints. Its tokens are in memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rayclean.config import Plugin
from rayclean.folder import Folder
from rayclean.functional import contrastive, losses, mixing
from rayclean.functional.margins import margin
from rayclean.functional.partition import Subset
from rayclean.models.base import pad
from rayclean.models.loading import encoder_class
from rayclean.models.precision import training_autocast

STRONG = {"name": "transformer", "model": "minilm", "trainable": "all", "max_length": 64}
CLASSES = 6


class PlainLoop:
    """Two networks and their losses; every other example is clean, the rest hard. `strong`: all networks but NoiseAL's weak one."""

    def __init__(
        self,
        name: str,
        examples: str,
        steps: int,
        seed: int,
        device: str,
        strong: Mapping[str, Any] = STRONG,
    ):
        table = Folder(examples).read_table("part-00000.parquet")
        self.name, self.device = name, device
        self.labels = torch.from_numpy(table["given_label"].to_numpy().astype(np.int64))
        self.autocast = training_autocast("auto", torch.device(device))
        names = {"noiseal": ("strong", "weak"), "lane": ("main", "auxiliary")}[name]
        plugins = (Plugin(**strong), Plugin(name="bilstm") if name == "noiseal" else Plugin(**strong))
        torch.manual_seed(seed)
        self.networks: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self.pads: dict[str, int] = {}
        for key, plugin in zip(names, plugins, strict=True):
            cls, options = encoder_class(plugin)
            self.networks[key] = cls(options, CLASSES).to(device).train()
            tokenizer = cls.tokenizer(options)
            self.tokens[key], _ = tokenizer(table["text"].to_pylist())
            self.pads[key] = tokenizer.pad_id
        groups = [
            {"params": list(n.parameters()), "lr": n.default_learning_rate} for n in self.networks.values()
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / steps)
        self.subset = torch.full((len(self.labels),), int(Subset.HARD))
        self.subset[::2] = Subset.CLEAN

    def train(self, batches: Sequence[npt.NDArray[np.int64]]) -> None:
        """A step on each batch of positions."""
        for positions in batches:
            inputs = {}
            for key, tokens in self.tokens.items():
                padded = pad([tokens[i] for i in positions], self.pads[key])
                inputs[key] = {name: value.to(self.device) for name, value in padded.items()}
            y = self.labels[positions].to(self.device)
            if self.name == "noiseal":
                total = self._noiseal(inputs, y, self.subset[positions].to(self.device))
            else:
                total = self._lane(inputs, y)
            total.backward()
            for network in self.networks.values():
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)

    def _run(self, name: str, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with self.autocast():
            features, logits = self.networks[name](inputs)
            return features, logits.float()

    def _classify(self, name: str, features: Tensor) -> Tensor:
        with self.autocast():
            logits: Tensor = self.networks[name].classify(features)
        return logits.float()

    def _noiseal(self, inputs: Any, y: Tensor, subset: Tensor) -> Tensor:
        clean, hard = subset == Subset.CLEAN, subset == Subset.HARD
        said = {name: self._run(name, inputs[name]) for name in self.networks}
        joint = torch.stack([logits.softmax(-1).detach() for _, logits in said.values()]).mean(0)
        targets = mixing.co_refined_target(y, joint.gather(1, y[:, None])[:, 0], joint)
        rows = hard.nonzero()[:, 0]
        partner = torch.arange(len(y), device=y.device)
        partner[rows] = rows[torch.randperm(len(rows), device=y.device)]
        weights = torch.full((len(y),), 0.7, device=y.device)
        total = torch.zeros((), device=y.device)
        for name, (features, logits) in said.items():
            total = total + losses.cross_entropy(logits, y).masked_fill(~clean, 0).mean()
            mixed = self._classify(name, mixing.interpolate(features, features[partner], weights))
            soft = losses.cross_entropy(mixed, mixing.interpolate(targets, targets[partner], weights))
            total = total + soft.masked_fill(~hard, 0).mean()
            again = {key: value[hard] for key, value in inputs[name].items()}
            longest = int(again["attention_mask"].sum(1).max())
            _, second = self._run(name, {key: value[:, :longest] for key, value in again.items()})
            total = total + 0.3 * losses.symmetric_kl(logits[hard], second).sum() / len(y)
        return total

    def _lane(self, inputs: Any, y: Tensor) -> Tensor:
        twice = {
            name: {key: value.repeat(2, 1) for key, value in batch.items()} for name, batch in inputs.items()
        }
        labels = y.repeat(2)
        features, logits = self._run("main", twice["main"])
        _, other = self._run("auxiliary", twice["auxiliary"])
        margin(logits[: len(y)].detach(), y)
        values, counted = contrastive.lscl(contrastive.pair(features, labels), other.softmax(-1))
        weighted = losses.cross_entropy(logits, labels).mean()
        return (
            weighted + losses.cross_entropy(other, labels).mean() + values.sum() / counted.sum().clamp(min=1)
        )
