"""A global batch on the host: which rows are whose, and what the networks read of them.

All of it is a function of (seed, epoch, positions), so a thread makes it while the step before runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rayclean.models.base import Inputs
from rayclean.tasks.base import IGNORED
from rayclean.training.inputs import Rows
from rayclean.training.job_data import JobData, Part
from rayclean.training.sampler import own_share
from rayclean.training.transfer import Outgoing
from rayclean.training.views import Views

AHEAD = 2
"""Batches that are ready before they are needed."""


class OutgoingInputs:
    """What every network reads, and other tensors, on their way to the device in one copy.

    Args:
        inputs: by network; those that several networks share are copied once.
        others: further tensors.
        device: where they go.
    """

    def __init__(self, inputs: Mapping[str, Inputs], others: list[Tensor], device: torch.device):
        self.inputs = inputs
        distinct = {id(batch): batch for batch in inputs.values()}
        values = [value for batch in distinct.values() for value in batch.values()]
        self._outgoing = Outgoing([*values, *others], device)

    def arrived(self) -> tuple[dict[str, Inputs], list[Tensor]]:
        """Inputs by network and the other tensors, on the device."""
        rest = iter(self._outgoing.arrived())
        moved: dict[int, Inputs] = {}
        for batch in self.inputs.values():
            if id(batch) not in moved:
                moved[id(batch)] = Inputs({name: next(rest) for name in batch}, batch.lengths)
        return {name: moved[id(batch)] for name, batch in self.inputs.items()}, list(rest)


@dataclass(frozen=True)
class HostBatch:
    """This worker's rows of one global batch."""

    own: Rows
    """[B] positions of the rows in the part; -1 = padding."""
    global_id: Rows
    """[W x B] ids of the rows of all workers, by rank; -1 = padding."""
    count: int
    """Valid rows of the global batch."""
    outgoing: OutgoingInputs
    """Inputs, labels [B, ...] and which rows are valid [B]."""

    def own_id(self, rank: int) -> Rows:
        """[B] ids of the rows of a worker."""
        return self.global_id[rank * len(self.own) : (rank + 1) * len(self.own)]


def read_batch(
    data: JobData,
    views: Mapping[str, Views],
    positions: Rows,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
) -> HostBatch:
    """Read a worker's rows of the global batch of training examples at some positions.

    A padding row (-1) carries the inputs of the first training example, so that every network can compute
    with it whatever it does inside; its id is -1 and it is in no mean.
    """
    train = data.train
    shares = [own_share(positions, each, world_size) for each in range(world_size)]
    own = shares[rank]
    filled, valid = np.maximum(own, 0), own >= 0
    global_id = np.concatenate(
        [np.where(share >= 0, train.ids[np.maximum(share, 0)], -1) for share in shares]
    )
    if views:
        ids = np.where(valid, train.ids[filled], -1)
        rewritten: dict[int, Inputs] = {}
        for name, each in views.items():
            if id(each) not in rewritten:
                rewritten[id(each)] = each.batch(ids, train.rows[name][filled], epoch)
        inputs = {name: rewritten[id(each)] for name, each in views.items()}
    else:
        inputs = data.batch(train, filled)
    others = [targets_of(train, filled, inputs), torch.from_numpy(valid)]
    return HostBatch(own, global_id, len(positions), OutgoingInputs(inputs, others, torch.device(device)))


def targets_of(part: Part, chosen: npt.NDArray[np.int64], inputs: Mapping[str, Inputs]) -> Tensor:
    """What networks learn of some rows of a part, on the host; without the words that one of the networks does not read."""
    targets = torch.from_numpy(part.targets(chosen))
    for batch in inputs.values():
        if "first_tokens" in batch:
            targets = targets.masked_fill(batch["first_tokens"] < 0, IGNORED)
    return targets
