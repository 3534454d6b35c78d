"""Types of NumPy arrays that the functions of this package share."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Example ids."""
Labels = npt.NDArray[np.integer[Any]]
"""Indices of classes; -1, where it is allowed, stands for none."""
Probabilities = npt.NDArray[np.float32]
"""Class probabilities [N, K]; rows sum to 1."""
Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
"""One truth value per example."""
