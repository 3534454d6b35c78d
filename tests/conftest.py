"""Fixtures for all tests: one embedded Ray for the whole session, and no trace outside temporary folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def ray_embedded() -> Iterator[None]:
    """An embedded Ray that all tests share; starting one costs seconds."""
    from rayclean.config import ClusterConfig
    from rayclean.runtime.cluster import connected

    with connected(ClusterConfig(cpus=4)):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets, named by RAYCLEAN_TEST_DATA."""
    folder = os.environ.get("RAYCLEAN_TEST_DATA")
    if not folder:
        pytest.skip("RAYCLEAN_TEST_DATA names no folder of real data sets")
    return Path(folder) / "data"
