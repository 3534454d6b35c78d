"""Every test has a cache of inputs of its own."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(own_cache: object) -> None:
    """No test finds the inputs of another one."""
