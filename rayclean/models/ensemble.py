"""Networks that predict together: an encoder whose logits are the mean of its members'.

It is made of networks that were trained, and not trained itself. The folder of an ensemble holds a sub-folder
per member, each as that network saves itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from rayclean.models.base import Encoder, Tokenizer
from rayclean.models.loading import encoder_class, load_encoder
from rayclean.plugins import Plugin


class Ensemble(Encoder):
    """Mean of the logits of networks of one encoder. Features are the members' side by side; a frozen body,
    which they have in common, is run once.
    """

    class Config(Encoder.Config):
        """Options beside `name`."""

        member: Plugin
        """Encoder of every member."""

    def __init__(self, config: Any, members: Sequence[Encoder]):
        """Of trained networks, all of `config.member`."""
        super().__init__(config, members[0].num_classes, members[0].per_token)
        self.members = nn.ModuleList(members)
        widths = [member.feature_dim for member in members]
        self.feature_dim = widths[0] if self.frozen else sum(widths)

    @classmethod
    def of(cls, members: Sequence[Encoder], name: str) -> Self:
        """The ensemble of networks of the encoder of a name."""
        options = members[0].config  # with the commit that it was pinned to, or the folder it was loaded from
        member = Plugin(name=name, **options.model_dump(mode="json"))
        return cls(cls.Config(member=member, max_length=options.max_length), members)

    @classmethod
    def tokenizer(cls, config: Any) -> Tokenizer:
        """The members' tokenizer."""
        member, options = encoder_class(config.member)
        return member.tokenizer(options)

    @classmethod
    def is_frozen(cls, config: Any) -> bool:
        """Whether the members' body is frozen."""
        member, options = encoder_class(config.member)
        return member.is_frozen(options)

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        """Features [B, D]: the frozen body's, or [B, D1 + D2 + ...], the members' side by side; per token with
        an axis of words before the last.
        """
        if self.frozen:
            return self._networks[0].encode(batch)
        return torch.cat([member.encode(batch) for member in self._networks], -1)

    def lower(self) -> None:
        """Hold the weights of the members' bodies in bfloat16."""
        for member in self._networks:
            member.lower()
        self.lowered = all(member.lowered for member in self._networks)

    def logits(self, features: Tensor) -> Tensor:
        """Mean [B, K] of the members' logits of features [B, D]."""
        widths = [member.feature_dim for member in self._networks]
        parts = [features] * len(widths) if self.frozen else torch.split(features, widths, -1)
        each = [member.logits(part) for member, part in zip(self._networks, parts, strict=True)]
        return torch.stack(each).mean(0)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features and logits [B, K]; a batch that carries cached `features` skips the body."""
        features = batch["features"] if "features" in batch else self.encode(batch)
        return features, self.logits(features)

    def save(self, folder: Path, labels: Sequence[str] = (), *, body: bool | None = None) -> None:
        """Write `rayclean.json`, and every member to `member-1/`, `member-2/`, ..."""
        self.describe(folder, labels)
        for number, member in enumerate(self._networks, 1):
            member.save(folder / f"member-{number}", labels, body=body)

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> Self:
        """Inverse of `save`."""
        folders = sorted(folder.glob("member-*"), key=lambda path: int(path.name.removeprefix("member-")))
        return cls.of([load_encoder(str(path)) for path in folders], description["options"]["member"]["name"])

    @property
    def _networks(self) -> list[Encoder]:
        return list(self.members)  # type: ignore[arg-type]
