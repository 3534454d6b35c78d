from pathlib import Path

import pytest

from tests.models import tiny


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "network"
