"""Ray Train's trainer as rayclean uses it: run from any thread, ended when asked, its failures in words."""

import time
from typing import Any

from rayclean.errors import FaultError
from rayclean.runtime import environment as environment
from rayclean.runtime.cluster import is_embedded
from rayclean.runtime.gpus import INSTALL
from rayclean.runtime.nodes import free_resources
from rayclean.runtime.places import MissingWorkersError

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import TrainControllerStateType
from ray.train.v2.api.exceptions import ControllerError

START_SECONDS = 1800.0
"""Time that a training waits for its workers before it is given up, at first and after each loss of them: an autoscaler
starts a node with GPUs in five to ten minutes, and other runs may hold what there is."""
START_ATTEMPTS = round(START_SECONDS / 60)
"""The same bound in failures of a group at its start: Ray Train counts as one each minute for which the resources of a group of a
given size are not there."""
MAX_FAILURES = 5
"""Losses of workers or nodes after which a run fails; the same command resumes it. Preemptions do not
count."""


class GroupWatch(ControllerCallback):
    """Tells the training's board whether a group of workers runs, and ends a wait for one after `START_SECONDS`.

    It lives in Ray Train's controller. Ray Train counts only groups that do not start: while an elastic group (`max_workers`)
    has too few resources for its least size, none is started, and it would wait for ever.
    """

    TELL_SECONDS = 10.0
    """Time after which the board, which may have been lost, is told again."""
    PAUSE_SECONDS = 0.5
    """Time between looks whether there are resources for an elastic group; the controller would look without a pause."""
    WAITING = frozenset({"INITIALIZING", "SCHEDULING", "RESCHEDULING", "RESTARTING", "RESIZING"})

    def __init__(self, board: Any, wanted: str, seconds: float):
        self.board, self.wanted, self.seconds = board, wanted, seconds
        self.since: float | None = None
        self.told = float("-inf")

    def after_controller_start(self, train_run_context: Any) -> None:
        """The wait for the first group begins."""
        self._note(waits=True)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """A group has started, was lost, or is still waited for.

        Raises:
            MissingWorkersError: it was waited for too long.
        """
        kind: TrainControllerStateType = current_state._state_type
        waits = kind.state_name in self.WAITING
        self._note(waits)
        if self.since is not None and time.monotonic() - self.since > self.seconds:
            raise missing_workers(self.wanted, self.seconds)
        if waits and previous_state._state_type is kind:
            time.sleep(self.PAUSE_SECONDS)

    def _note(self, waits: bool) -> None:
        now = time.monotonic()
        if waits != (self.since is not None) or now - self.told > self.TELL_SECONDS:
            self.board.tell.remote(not waits)
            self.told = now
        self.since = (self.since or now) if waits else None


class AbortableTrainer(TorchTrainer):
    """A trainer that leaves signals to the command, and is without two unneeded callbacks: the manager of Ray Data
    sets, as none are used, and on an embedded Ray the cleaner of placement groups, which would wait 12 seconds at the
    end of every training for a state API that does not exist.
    """

    controller: Any = None
    """The actor that runs the training; None before it has started."""
    stopped = False

    def __init__(self, *arguments: Any, watch: GroupWatch, **named: Any):
        super().__init__(*arguments, **named)
        self.watch = watch

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        """Run the controller on this node as Ray does, from any thread, and remember it. Ray would install a handler of SIGINT
        that waits for it instead of raising `KeyboardInterrupt`, and leave the handler behind for everything that runs after
        the training.
        """
        node = ray.get_runtime_context().get_node_id()
        environment = {RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: "0", **get_env_vars_to_propagate()}
        actor = ray.remote(
            num_cpus=0,
            label_selector={RAY_NODE_ID_KEY: node},
            runtime_env={"env_vars": environment},
        )(TrainController)
        self.controller = actor.remote(**arguments)
        if self.stopped:
            self.abort()
        ray.get(self.controller.run.remote())
        return ray.get(self.controller.get_result.remote())

    def stop(self) -> None:
        """Begin to end the training, from another thread: the controller ends its workers and gives their resources back."""
        self.stopped = True
        if self.controller is not None:
            self.controller.abort.remote()

    def abort(self) -> None:
        """End the training without waiting; workers end with their controller, whose resources Ray frees with the command."""
        if self.controller is not None:
            ray.kill(self.controller)

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback) if is_embedded() else (DatasetsCallback,)
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [self.watch, *(callback for callback in callbacks if not isinstance(callback, needless))]


def missing_workers(wanted: str, seconds: float) -> MissingWorkersError:
    """The error of a training that has waited so long for its workers, which were to be `wanted`."""
    return MissingWorkersError(
        f"training did not get {wanted} in {seconds / 60:g} minutes; {free_resources()}: end what holds the rest "
        "(`ray status` shows it), lower cluster.workers, cpus_per_worker or gpus_per_worker, and run the same command again"
    )


def explained_failure(failure: Exception, wanted: str) -> FaultError:
    """What to do about a training that Ray Train gave up, whose workers were to be `wanted`."""
    said = " ".join(str(failure).split())
    if isinstance(failure, ControllerError) and isinstance(failure.controller_failure, MissingWorkersError):
        return failure.controller_failure
    if "StartupTimeout" in said or "StartupTimeout" in type(failure).__name__:
        return missing_workers(wanted, START_SECONDS)
    if "have NCCL built in" in said:  # Ray joins the group before `_work` can look at the node
        return FaultError(
            f"training: workers were placed on GPUs of a node whose PyTorch cannot use them (no NCCL). {INSTALL} there, or "
            "set cluster.use_gpu = false"
        )
    if "NCCL" in said or "ncclInvalidUsage" in said:
        return FaultError(
            f"training was given up, as its workers could not talk to each other through NCCL: {said[-1000:]}; look at "
            "nvidia-smi on each node, and set NCCL_SOCKET_IFNAME where nodes have several networks"
        )
    return FaultError(
        f"training was given up, as workers or nodes failed more than {MAX_FAILURES} times or Ray itself is gone: "
        f"{said[-1500:]}; finished epochs are kept: fix the cause (often memory) and run the "
        "same command again"
    )
