"""The checkpoint of a job: one safetensors file that holds all that an epoch boundary needs, whole or absent,
no pickle.

Its tensors are the weights of all networks, AdamW's moments, the per-example state with its ids, and the
weights of the best epoch so far; its header has the epoch, the history and the key of the job. Nothing else
has to be kept: the order of the examples is a function of (seed, epoch), the learning rate is one of the
step, and random generators are seeded anew from (seed, epoch, rank) each epoch. So a job continues under
another number of workers as if nothing had happened.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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

    epoch: int = 0
    """Last finished epoch; 0 = none."""
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
    networks: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: ExampleState,
    progress: TrainingProgress,
) -> None:
    """Replace the job's checkpoint."""
    tensors = {f"weights/{name}": value for name, value in checkpoint_weights(networks).items()}
    tensors |= {f"best/{name}": value for name, value in progress.best_weights.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": v.detach().cpu().contiguous() for name, v in moments.items()}
    tensors["ids"] = torch.from_numpy(np.array(state.ids))
    tensors |= {f"state/{name}": torch.from_numpy(column) for name, column in state.own.items()}
    header = {
        "key": key, "epoch": progress.epoch, "best_epoch": progress.best_epoch, "history": progress.history,
    }  # fmt: skip
    folder.write_bytes(save(tensors, metadata={"rayclean": json.dumps(header)}), FILE)


def read_checkpoint(
    folder: Folder, key: str, networks: nn.Module, optimizer: torch.optim.Optimizer, state: ExampleState
) -> TrainingProgress:
    """Load the job's checkpoint into networks, optimiser and state, and return its progress.

    Without a checkpoint, or with one of another key, nothing is loaded and the progress is that of a new
    start.
    """
    if not folder.exists(FILE):
        return TrainingProgress()
    content = folder.fs.cat_file(folder.path(FILE))
    header = json.loads(metadata_of(content)["rayclean"])
    if header["key"] != key:
        return TrainingProgress()
    tensors = load(content)

    def under(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }

    networks.load_state_dict(under("weights/"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer/").items():
        index, _, moment = name.partition("/")
        moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    state.load(tensors["ids"].numpy(), {name: value.numpy() for name, value in under("state/").items()})
    return TrainingProgress(header["epoch"], header["best_epoch"], under("best/"), header["history"])
