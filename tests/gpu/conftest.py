"""Where the checks of a device run: networks with random weights are written once."""

import pytest
import torch

from tests.gpu.place import Place


@pytest.fixture(scope="session")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A CPU, everything small."""
    return Place("cpu", tmp_path_factory.mktemp("checks"), small=True)


@pytest.fixture(scope="session")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The first GPU, everything as large as it is meant."""
    if not torch.cuda.is_available():
        pytest.skip(f"PyTorch {torch.__version__} sees no GPU here")
    return Place("cuda", tmp_path_factory.mktemp("checks"))
