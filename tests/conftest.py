"""What all tests share: the environment, one embedded Ray, the cache, the order of tests and their groups.

A test that needs Ray asks for `ray_embedded`, or bears the mark `ray` where it starts a Ray in a process of its own.
Under pytest-xdist (`--dist loadgroup`) the tests on an embedded Ray run on one worker, one after another. Of all other tests those of a file stay together, since they share what is expensive to set up.
"""

import gc
import os
import random
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from _pytest.nodeid import NodeId

if TYPE_CHECKING:
    from rayclean.runtime.engines import Engines

# Toy tensors on several threads only wait for each other. PyTorch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same for what rayclean computes in the process of a test (`runtime.threads`).
os.environ.setdefault(CORES := "LOKY_MAX_CPU_COUNT", "1")
# Ray's workers give way to every other process by default; beside other tests, those on Ray would hardly move.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Beside other tests an example takes as long as it takes. The same examples every time, unless others are asked for: a suite
# that fails now and then for a rare one is believed by nobody.
hypothesis.settings.register_profile(
    "rayclean", deadline=None, derandomize="RAYCLEAN_FUZZ_SEED" not in os.environ
)
hypothesis.settings.load_profile("rayclean")


pytest.register_assert_rewrite("tests.contracts")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shuffle SEED` runs the tests in another order: no test may depend on it."""
    help_ = "run files, classes and tests in an order drawn with this seed"
    parser.addoption("--shuffle", type=int, metavar="SEED", help=help_)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test its group, the longest groups first; draw the order if `--shuffle` is given."""
    seed = config.getoption("--shuffle")
    if seed is not None:
        order = random.Random(seed)
        for key in (lambda item: item.nodeid, lambda item: (item.path, item.parent), lambda item: item.path):
            _shuffle(items, key, order)
    if getattr(config.option, "loadgroup", False):  # on a worker of pytest-xdist
        for item in items:
            _set_group(item, "ray" if _on_embedded_ray(item) else item.nodeid.partition("::")[0])
    items.sort(key=lambda item: 1 if item.get_closest_marker("llm") else 0 if _on_embedded_ray(item) else 2)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports have left, which lives as long as the process."""
    gc.collect()
    gc.freeze()


def _on_embedded_ray(item: pytest.Item) -> bool:
    return "ray_embedded" in item.fixturenames  # type: ignore[attr-defined]


def _set_group(item: pytest.Item, group: str) -> None:
    """Append the group to the id, where pytest-xdist's scheduler looks for it.

    The mark `xdist_group` of pytest-xdist 3.8 has no effect with pytest 9.2: it sets an attribute that is no longer read.
    """
    item._id = NodeId.parse(f"{item.nodeid}@{group}")
    assert item.nodeid.endswith(f"@{group}"), "tests would start Ray on every worker"


def _shuffle(items: list[pytest.Item], key: Callable[[pytest.Item], Hashable], order: random.Random) -> None:
    """Reorder the groups of items with the same key; the order inside of each group stays."""
    groups: dict[Hashable, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    names = list(groups)
    order.shuffle(names)
    items[:] = [item for name in names for item in groups[name]]


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test writes into the caches of the user: rayclean's and W&B's lie in a temporary folder.

    The workers of pytest-xdist share it, as processes on one machine do: a language model is converted once.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "caches"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYCLEAN_CACHE", str(folder / "rayclean"))
        for name in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / "wandb" / name.lower()))
        yield folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test alone: nothing is found that another test has left."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAYCLEAN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def ray_embedded(session_cache: Path) -> Iterator[None]:
    """An embedded Ray for all tests that ask for it: starting one takes seconds."""
    from rayclean.config import ClusterConfig
    from rayclean.runtime.cluster import connected

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(CORES, raising=False)  # its processes inherit the environment
            stack.enter_context(connected(ClusterConfig(cpus=4)))
        yield


@pytest.fixture(autouse=True)
def _cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test on Ray has all cores, as pools of actors and groups of workers are what it is about; so has a slow one."""
    marked = any(request.node.get_closest_marker(name) for name in ("ray", "slow"))
    if marked or _on_embedded_ray(request.node):
        monkeypatch.delenv(CORES, raising=False)
    elif (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)  # the test before may have asked for more


@pytest.fixture
def on_ray(ray_embedded: None) -> "Engines":
    """The engines of verbs on Ray; without them a verb runs in this process."""
    from rayclean.config import ClusterConfig
    from rayclean.runtime.engines import Engines

    return Engines(ClusterConfig(), on_ray=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets, named by RAYCLEAN_TEST_DATA."""
    folder = os.environ.get("RAYCLEAN_TEST_DATA")
    if not folder:
        pytest.skip("RAYCLEAN_TEST_DATA names no folder of real data sets")
    return Path(folder) / "data"
