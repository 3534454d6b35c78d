"""A language model that starts with the command: where it does, what the verbs see of it, and when it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from rayclean.annotators.model_server import ModelServer, ServerOptions
from rayclean.config import ClusterConfig
from rayclean.folder import Folder
from rayclean.runtime import ahead
from rayclean.runtime.engines import Workplace
from rayclean.runtime.needs import VerbNeeds
from rayclean.runtime.preflight import ResourceDemand
from rayclean.runtime.serve import ServedEndpoint
from rayclean.runtime.session import Session

SERVER = ModelServer("smollm2-135m", None, ServerOptions())
LOAD, PREDICT, DETECT = VerbNeeds(), VerbNeeds(trains=True, network=True), VerbNeeds()
RELABEL = VerbNeeds(servers=(SERVER,), asks_anew=True)
TRAIN = VerbNeeds(trains=True, network=True)
ALONE = Workplace()
VERBS = [PREDICT, DETECT, RELABEL, TRAIN]


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Ray of this process with room for everything."""

    def demand(cpus: float, gpus: float) -> Any:
        return lambda *_: ResourceDemand("it", cpus, gpus, "")

    for name, value in {
        "is_embedded": lambda: True,
        "cpu_count": lambda: 4,
        "gpu_count": lambda: 0,
        "server_demand": demand(2, 0),
        "training_demand": demand(2, 0),
        "inference_demand": demand(1, 0),
        "_memory_gib": lambda server: 11.0,
        "psutil": SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=16 * 2**30)),
    }.items():
        monkeypatch.setattr(ahead, name, value)
    return monkeypatch


def test_it_starts_where_there_is_room_for_both(roomy: pytest.MonkeyPatch) -> None:
    assert ahead.server_to_start(ClusterConfig(), VERBS) is SERVER


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("is_embedded", lambda: False),  # a cluster that others use
        ("cpu_count", lambda: 3),
        ("_memory_gib", lambda server: 17.0),
        ("_memory_gib", lambda server: None),  # a model of a hub
    ],
)
def test_it_waits_where_it_would_take_something(name: str, value: Any, roomy: pytest.MonkeyPatch) -> None:
    roomy.setattr(ahead, name, value)
    assert ahead.server_to_start(ClusterConfig(), VERBS) is None


def test_on_the_only_gpu_it_waits_until_the_networks_are_done(roomy: pytest.MonkeyPatch) -> None:
    roomy.setattr(ahead, "server_demand", lambda options: ResourceDemand("the model", 1, 1, ""))
    roomy.setattr(ahead, "inference_demand", lambda cluster: ResourceDemand("networks", 1, 1 / 3, ""))
    for gpus, expected in ((1, None), (2, SERVER)):
        roomy.setattr(ahead, "gpu_count", lambda gpus=gpus: gpus)
        assert ahead.server_to_start(ClusterConfig(), VERBS) is expected


@pytest.mark.parametrize(
    "verbs",
    [
        [LOAD, DETECT, RELABEL],  # nothing to wait for
        [PREDICT, DETECT, VerbNeeds(servers=(SERVER,))],  # the ledger may hold all answers
        [RELABEL, TRAIN],
        [PREDICT, DETECT],
    ],
)
def test_it_does_not_start_for_nothing(verbs: list[VerbNeeds], roomy: pytest.MonkeyPatch) -> None:
    assert ahead.server_to_start(ClusterConfig(), verbs) is None


def test_memory_counts_the_weights_twice_beside_what_processes_take(
    roomy: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    roomy.undo()
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    server = ModelServer(str(tmp_path), None, ServerOptions(kv_cache_gib=3))
    expected = 2 / 1024 + 3 + ahead.PROCESSES_GIB + ahead.VERBS_GIB
    assert ahead._memory_gib(server) == pytest.approx(expected)
    assert ahead._memory_gib(ModelServer("somebody/a-model", None, ServerOptions())) is None


@pytest.fixture
def events(roomy: pytest.MonkeyPatch) -> list[str]:
    """What happens to the server of a session that is connected."""
    happened: list[str] = []
    endpoint = ServedEndpoint("http://127.0.0.1:1/v1", "model", "tokenizer", 16)

    @contextmanager
    def starting_llm(model: str, revision: str | None, options: Any, owner: str) -> Iterator[Any]:
        def wait_until_up() -> ServedEndpoint:
            happened.append("waited for")
            return endpoint

        happened.append(f"starts for {owner.rpartition('/')[2]}")
        try:
            yield wait_until_up
        except ValueError:
            happened.append("saw the error")
            raise
        finally:
            happened.append("ends")

    roomy.setattr(ahead, "starting_llm", starting_llm)
    return happened


def session(place: Workplace = ALONE) -> Session:
    made = Session(ClusterConfig(ray=False), Folder("toy"), place)
    made._connected = True
    return made


def engines_of(made: Session, verbs: list[VerbNeeds], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The engines of each verb, in turn."""
    monkeypatch.setattr("rayclean.runtime.session.is_worth_ray", lambda *_: False)
    for position in range(len(verbs)):
        yield made.engines(verbs[position:])


def test_it_starts_with_the_first_network_and_ends_with_the_last_verb_that_asks(
    events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session() as made:
        each = engines_of(made, [LOAD, *VERBS], monkeypatch)
        assert next(each).place.endpoints == {}  # load may find that the data are of no use
        assert events == []
        next(each)
        assert events == ["starts for toy"]
        next(each)
        endpoints = next(each).place.endpoints
        assert endpoints.get("another") is None
        assert events == ["starts for toy"]
        assert endpoints.get(SERVER.key).model == "model"
        assert events == ["starts for toy", "waited for"]
        assert next(each).place == ALONE
        assert events == ["starts for toy", "waited for", "ends"]
    assert events[2:] == ["ends"]


def test_it_ends_with_a_command_that_fails_and_sees_why(
    events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        with session() as made:
            next(engines_of(made, VERBS, monkeypatch))
            raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        fails()
    assert events == ["starts for toy", "saw the error", "ends"]


def test_a_trial_of_a_sweep_starts_none(events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with session(Workplace(shares_cluster=True)) as made:
        list(engines_of(made, VERBS, monkeypatch))
    assert events == []
