"""The connection of one command to Ray, opened by the first verb that needs it and closed with the
command.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from rayclean.config import ClusterConfig
from rayclean.folder import Folder
from rayclean.runtime.engines import Engines, Workplace
from rayclean.runtime.needs import VerbNeeds, is_on_cluster, is_worth_ray, needs_cluster

if TYPE_CHECKING:
    from rayclean.runtime.serve import Endpoints


class Session:
    """The engines of every verb of a command, over one connection to Ray.

    Args:
        cluster: section `cluster` of the config.
        run: the run folder.
        place: resources that the run shares with concurrent runs.
    """

    def __init__(self, cluster: ClusterConfig, run: Folder, place: Workplace):
        self.cluster, self.run, self.place = cluster, run, place
        self._open = ExitStack()
        self._connected = False
        self._ahead = ExitStack()
        self._starting: Endpoints = {}
        """Language models that started with the command, until the last verb that asks them has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def prepare(self, needs: Sequence[VerbNeeds]) -> None:
        """Connect if a verb needs Ray regardless of the amount of work, so that missing resources are found
        at the start.

        Raises:
            ConfigError: a verb needs Ray, and `cluster.ray = false` forbids it.
            ResourceError: Ray cannot be reached, or the cluster is too small.
            FaultError: Ray does not start on this machine.
        """
        if self.place.in_process or any([needs_cluster(self.cluster, each) for each in needs]):
            self._connect([] if self.place.in_process else needs)

    def engines(self, needs: Sequence[VerbNeeds]) -> Engines:
        """The engines of the next verb.

        Args:
            needs: needs of the next verb and of those after it.

        Raises:
            ResourceError: Ray cannot be reached, or the cluster is too small.
            FaultError: Ray does not start on this machine.
        """
        on_ray = not self.place.in_process and is_worth_ray(self.cluster, needs[0])
        if on_ray:
            self._connect(needs)
        if needs[0].network:
            self._start_ahead(needs)
        if self._starting and self._starting.keys().isdisjoint(
            server.key for need in needs for server in need.servers
        ):
            self._starting = {}
            self._ahead.close()
        place = replace(self.place, endpoints=self._starting) if self._starting else self.place
        return Engines(self.cluster, on_ray, place, self.run.name if self._reports else "")

    def report_finished(self, verb: str, seconds: float, figures: Mapping[str, Any]) -> None:
        """Export the figures of a finished verb as metrics of the cluster."""
        if self._reports:
            from rayclean.runtime.prometheus import report_finished

            report_finished(self.run.name, verb, seconds, figures)

    @property
    def _reports(self) -> bool:
        """Whether metrics are exported; an embedded Ray has no agent for that."""
        return self._connected and is_on_cluster()

    def _start_ahead(self, needs: Sequence[VerbNeeds]) -> None:
        """Begin to start the language model that a later verb asks, where it takes nothing from those before."""
        alone = self._connected and self.place == Workplace()
        if not alone or self._starting or not any(need.servers for need in needs[1:]):
            return
        from rayclean.runtime.ahead import server_to_start, started_ahead

        if (server := server_to_start(self.cluster, needs)) is not None:
            self._open.enter_context(self._ahead)
            self._starting = self._ahead.enter_context(started_ahead(server, self.run.url()))

    def _connect(self, needs: Sequence[VerbNeeds]) -> None:
        if self._connected:
            return
        from rayclean.runtime.cluster import connected
        from rayclean.runtime.preflight import preflight

        self._open.enter_context(connected(self.cluster))
        self._connected = True
        if self._reports:
            from rayclean.runtime.prometheus import reporting_progress

            self._open.enter_context(reporting_progress(self.run.name))
        preflight(self.cluster, needs)
