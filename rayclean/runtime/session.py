"""The connection of one command to Ray, opened by the first verb that needs it and closed with the
command.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from rayclean.config import ClusterConfig
from rayclean.runtime.engines import Engines, Workplace
from rayclean.runtime.needs import VerbNeeds, is_on_cluster, is_worth_ray, needs_cluster, where_it_runs

logger = logging.getLogger(__name__)


class Session:
    """The engines of every verb of a command, over one connection to Ray.

    Args:
        cluster: section `cluster` of the config.
        run: name of the run, for the metrics of a cluster.
        place: resources that the run shares with concurrent runs.
    """

    def __init__(self, cluster: ClusterConfig, run: str, place: Workplace):
        self.cluster, self.run, self.place = cluster, run, place
        self._open = ExitStack()
        self._connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.close()

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
        if self.place.in_process:
            logger.info("the next verb runs in this process, as one of several runs")
        else:
            logger.info("the next verb runs %s", where_it_runs(self.cluster, needs[0]))
        if on_ray:
            self._connect(needs)
        return Engines(self.cluster, on_ray, self.place, self.run if self._reports else "")

    def report_finished(self, verb: str, seconds: float, figures: Mapping[str, Any]) -> None:
        """Export the figures of a finished verb as metrics of the cluster."""
        if self._reports:
            from rayclean.runtime.prometheus import report_finished

            report_finished(self.run, verb, seconds, figures)

    @property
    def _reports(self) -> bool:
        """Whether metrics are exported; an embedded Ray has no agent for that."""
        return self._connected and is_on_cluster()

    def _connect(self, needs: Sequence[VerbNeeds]) -> None:
        if self._connected:
            return
        from rayclean.runtime.cluster import connected
        from rayclean.runtime.preflight import preflight

        self._open.enter_context(connected(self.cluster))
        self._connected = True
        if self._reports:
            from rayclean.runtime.prometheus import reporting_progress

            self._open.enter_context(reporting_progress(self.run))
        preflight(self.cluster, needs)
