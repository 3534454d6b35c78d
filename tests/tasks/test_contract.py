import pytest

from rayclean.plugins import Plugin
from rayclean.tasks import TASKS
from tests.contracts import check_task


@pytest.mark.parametrize("name", TASKS)
def test_contract(name: str) -> None:
    check_task(Plugin(name=name))
