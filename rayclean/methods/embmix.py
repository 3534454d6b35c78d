"""EmbMix in a training step: hard examples of all workers mixed in embedding space (`functional/mixing.py`
has the maths).

NoiseAL's L_H (Yuan et al., ACL 2024) after SelfMix (Qiao et al., COLING 2022); DivideMix mixes all rows so.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rayclean.functional import losses, mixing
from rayclean.methods.batch import Output, StepBatch


@dataclass(frozen=True)
class EmbMix:
    """Partners and shares of this worker's rows, drawn from the global batch, and their mixed
    soft targets. Views are mixed as rows of their own, R = B or all views of B rows.
    """

    partner: Tensor
    """[R] row of the gathered batch that a row is mixed with."""
    share: Tensor
    """[R] lambda' of the row itself."""
    target: Tensor
    """[R, K] g~."""

    @classmethod
    def draw(
        cls, batch: StepBatch, members: Tensor, targets: Tensor, seed: int, epoch: int, alpha: float
    ) -> "EmbMix":
        """Mix the members of the global batch among themselves. A collective.

        Args:
            batch: this worker's rows.
            members: [R] bool, which rows are mixed.
            targets: [R, K] soft targets g.
            seed: of the job.
            epoch: other epochs give other partners and shares.
            alpha: of Beta(alpha, alpha).
        """
        copies = len(members) // len(batch.valid)
        keys = mixing.copy_keys(batch.example_id.cpu().numpy(), copies)
        all_keys = batch.gather(torch.from_numpy(keys).to(members.device))
        all_members = batch.gather((members & batch.valid.repeat(copies)).to(torch.int8)) > 0
        partner = mixing.partners(all_keys.cpu().numpy(), all_members.cpu().numpy(), seed, epoch)
        mine = slice(batch.rank * len(members), (batch.rank + 1) * len(members))
        partner_of_mine = torch.from_numpy(partner[mine]).to(members.device)
        share = torch.from_numpy(mixing.mix_weights(keys, seed, epoch, alpha)).to(targets)
        return cls(
            partner_of_mine, share, mixing.interpolate(targets, batch.gather(targets)[partner_of_mine], share)
        )

    def logits(self, batch: StepBatch, name: str, output: Output) -> Tensor:
        """[R, K] classify(h~) of the network of a name. A collective."""
        mixed = mixing.interpolate(output.features, batch.gather(output.features)[self.partner], self.share)
        return batch.classify(name, mixed)

    def loss(self, batch: StepBatch, name: str, output: Output) -> Tensor:
        """[R] CE(classify(h~), g~) of the network of a name. A collective."""
        return losses.cross_entropy(self.logits(batch, name, output), self.target)


def dropout_divergence(batch: StepBatch, name: str, output: Output, mask: Tensor) -> Tensor:
    """[B] symmetric KL of two dropout passes of a network over the rows of `mask` [B]; 0 elsewhere."""
    second = batch.again(name, mask).logits
    values = torch.zeros_like(output.logits[:, 0])
    return values.masked_scatter(mask, losses.symmetric_kl(output.logits[mask], second).to(values))
