"""The checkpoint of a job: one safetensors file that holds all that an epoch boundary needs, whole or absent,
no pickle.

Its tensors are the weights of all networks, AdamW's moments, the per-example state with its ids, which
examples train in the stage, and the weights of the best epoch so far; its header has stage and epoch, the
history and the key of the job. Nothing else
has to be kept: the order of the examples is a function of (seed, epoch), the learning rate is one of the
step, and random generators are seeded anew from (seed, epoch, rank) each epoch. So a job continues under
another number of workers as if nothing had happened.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from rayclean.folder import Folder
from rayclean.models.safetensors_header import metadata_of
from rayclean.training.state import ExampleState

FILE = "checkpoint.safetensors"


@dataclass
class TrainingProgress:
    """Progress of a job, as of its last finished epoch."""

    stage: int = 0
    """Place of its stage among all."""
    epoch: int = 0
    """Last finished epoch, of all stages; 0 = none."""
    best_epoch: int = 0
    """1-based; 0 = none yet that may be chosen."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch, on the CPU; only the first worker keeps them."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The lines of `metrics.jsonl`."""


def checkpoint_weights(networks: nn.Module) -> dict[str, Tensor]:
    """A private copy of all weights on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in networks.state_dict().items()
    }


def write_checkpoint(
    folder: Folder,
    key: str,
    networks: nn.ModuleDict,
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: ExampleState,
    kept: npt.NDArray[np.bool_] | None,
    progress: TrainingProgress,
) -> None:
    """Replace the job's checkpoint. `kept` [N]: which examples train in the running stage; None: all."""
    tensors = {f"weights/{name}": value for name, value in checkpoint_weights(networks).items()}
    tensors |= {f"best/{name}": value for name, value in progress.best_weights.items()}
    for network, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            place = f"optimizer/{network}/{index}"
            tensors |= {f"{place}/{name}": v.detach().cpu().contiguous() for name, v in moments.items()}
    tensors["ids"] = torch.from_numpy(np.array(state.ids))
    tensors |= {f"state/{name}": torch.from_numpy(column) for name, column in state.own.items()}
    if kept is not None:
        tensors["kept"] = torch.from_numpy(kept)
    header = {
        "key": key, "stage": progress.stage, "epoch": progress.epoch, "best_epoch": progress.best_epoch,
        "history": progress.history,
    }  # fmt: skip
    folder.write_bytes(save(tensors, metadata={"rayclean": json.dumps(header)}), FILE)


@dataclass(frozen=True)
class SavedTraining:
    """Content of a checkpoint."""

    progress: TrainingProgress
    tensors: dict[str, Tensor]

    def restore(
        self, networks: nn.ModuleDict, optimizers: Mapping[str, torch.optim.Optimizer], state: ExampleState
    ) -> npt.NDArray[np.bool_] | None:
        """Load networks, optimisers and state, and return which examples [N] train in the stage; None: all."""
        networks.load_state_dict(_under(self.tensors, "weights/"))
        for network, optimizer in optimizers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(self.tensors, f"optimizer/{network}/").items():
                index, _, moment = name.partition("/")
                moments.setdefault(int(index), {})[moment] = value
            optimizer.load_state_dict(
                {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        columns = {name: value.numpy() for name, value in _under(self.tensors, "state/").items()}
        state.load(self.tensors["ids"].numpy(), columns)
        return self.tensors["kept"].numpy() if "kept" in self.tensors else None


def read_checkpoint(folder: Folder, key: str) -> SavedTraining | None:
    """The job's checkpoint; None where there is none, or one of another key."""
    if not folder.exists(FILE):
        return None
    content = folder.fs.cat_file(folder.path(FILE))
    header = json.loads(metadata_of(content)["rayclean"])
    if header.pop("key") != key:
        return None
    tensors = load(content)
    return SavedTraining(TrainingProgress(best_weights=_under(tensors, "best/"), **header), tensors)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
