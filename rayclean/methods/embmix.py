"""EmbMix in a training step: hard examples of all workers mixed in embedding space (`functional/mixing.py`
has the maths).

NoiseAL's L_H (Yuan et al., ACL 2024) after SelfMix (Qiao et al., COLING 2022); DivideMix mixes all rows so.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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
        keys_of = [mixing.copy_keys(ids, copies) for ids in np.split(batch.global_id, batch.world_size)]
        all_members = batch.gather((members & batch.valid.repeat(copies)).to(torch.int8)) > 0
        partner = mixing.partners(np.concatenate(keys_of), all_members, seed, epoch)
        partner = partner[batch.rank * len(members) : (batch.rank + 1) * len(members)]
        share = batch.put(mixing.mix_weights(keys_of[batch.rank], seed, epoch, alpha)).to(targets.dtype)
        return cls(partner, share, mixing.interpolate(targets, batch.gather(targets)[partner], share))

    def logits(self, batch: StepBatch, name: str, output: Output) -> Tensor:
        """[R, K] classify(h~) of the network of a name. A collective."""
        mixed = mixing.interpolate(output.features, batch.gather(output.features)[self.partner], self.share)
        return batch.classify(name, mixed)

    def loss(self, batch: StepBatch, name: str, output: Output) -> Tensor:
        """[R] CE(classify(h~), g~) of the network of a name. A collective."""
        return losses.cross_entropy(self.logits(batch, name, output), self.target)


def dropout_divergence(batch: StepBatch, name: str, output: Output, rows: npt.NDArray[np.int64]) -> Tensor:
    """[B] symmetric KL of two dropout passes of a network over some rows [M], known to the host; 0 elsewhere."""
    second, places = batch.again(name, rows).logits, batch.put(rows)
    values = losses.symmetric_kl(output.logits.index_select(0, places), second)
    nothing = torch.zeros_like(output.logits[:, 0])
    return nothing.index_copy(0, places, values.to(nothing.dtype))
