"""Precision of forward passes: what `precision = "auto"` means for training and for inference.

Both take bfloat16 where the device multiplies in it and float32 elsewhere. They differ on CPUs: training
stays in float32, because backward passes gain on few of them; inference takes bfloat16 on those that gain
(AMX, AMD's AVX512-BF16).
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
Autocast = Callable[[], AbstractContextManager[Any]]
"""Opens the context of a forward pass: reduced precision, or nothing."""


def training_autocast(precision: Precision, device: torch.device) -> Autocast:
    """Contexts for the forward passes of a training; `auto` is bfloat16 on GPUs that compute in it."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return _autocast(precision == "bfloat16" or (precision == "auto" and native), device)


def inference_autocast(precision: Precision, device: torch.device) -> Autocast:
    """Contexts for forward passes without gradients; `auto` is bfloat16 where `gains_by_bfloat16`."""
    gains = precision == "auto" and gains_by_bfloat16(device)
    return _autocast(precision == "bfloat16" or gains, device)


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32: compute capability 8 on a GPU, AMX or AMD's AVX512-BF16 on a
    CPU.

    Intel's AVX512-BF16 without AMX multiplies more slowly in bfloat16 than in float32 (MiniLM: .6 of the rows
    per second).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and _is_amd()


def _autocast(reduced: bool, device: torch.device) -> Autocast:
    return (lambda: torch.autocast(device.type, torch.bfloat16)) if reduced else nullcontext


@functools.cache
def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
