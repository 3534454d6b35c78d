import pytest

from rayclean.annotators import ANNOTATORS
from rayclean.plugins import Plugin
from tests.contracts import check_annotator

ASK_A_SERVER = {"openai", "served"}
"""The contract of the former is in `test_openai.py`; the latter is the former, at the address of a server of its own."""


@pytest.mark.parametrize("name", [name for name in ANNOTATORS if name not in ASK_A_SERVER])
def test_contract(name: str) -> None:
    check_annotator(Plugin(name=name))
