"""Where checks of a device run, how large they are, and what a check is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_networks import random_texts, write_network

Figures = dict[str, Any]
"""What a check has measured; it is kept if the check fails."""


class CheckFailedError(AssertionError):
    """What was checked does not hold."""


class CheckSkippedError(Exception):
    """What is to be checked is not there on this machine."""


@dataclass(frozen=True)
class Place:
    """A device, a folder, and whether everything is small."""

    device: str
    folder: Path
    small: bool = False
    seed: int = 0

    @property
    def cuda(self) -> bool:
        """Whether the device is an NVIDIA GPU."""
        return self.device.startswith("cuda")

    def network(self, shape: str) -> str:
        """Folder of a network of a shape with random weights; of the smallest one where everything is small."""
        return write_network(self.folder / "networks", "tiny" if self.small else shape)

    def texts(self, rows: int, median: int = 40) -> list[str]:
        """Texts for these networks."""
        return random_texts("tiny" if self.small else "bert-base", rows, self.seed, median)

    def new(self, name: str) -> Path:
        """A folder for one check, which nobody has used."""
        number = 0
        while (path := self.folder / f"{name}-{number}").exists():
            number += 1
        path.mkdir(parents=True)
        return path

    def wait(self) -> None:
        """Wait until the device has done all that it was told."""
        if self.cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Check:
    """One check: raises if it fails, and writes down what it measures."""

    name: str
    title: str
    run: Callable[[Place, Figures], None]
    seconds: int
    """Estimate of its time on an H200; it is not begun where less is left."""


def require(holds: bool, otherwise: str) -> None:
    """Fail unless something holds.

    Raises:
        CheckFailedError: it does not.
    """
    if not holds:
        raise CheckFailedError(otherwise)
