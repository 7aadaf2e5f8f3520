"""One question, one answer: which workers it is about, their readings, the sum. A refusal is RefusedError."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

from pdcluster_operator.resources import Manifest
from pdcluster_operator.scaling.adapter.answers import OLDEST_SECONDS, RefusedError, total, value_list
from pdcluster_operator.scaling.adapter.exposition import GAUGES
from pdcluster_operator.scaling.adapter.scraper import Scraper
from pdcluster_operator.scaling.adapter.selector import SelectorError, parse
from pdcluster_operator.scaling.adapter.workers import Workers, serving


class Answerer:
    """Owns no state."""

    def __init__(self, workers: Workers, scraper: Scraper, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._scraper = scraper
        self._clock = clock

    async def answer(self, namespace: str, metric: str, selector: str) -> Manifest:
        """An ExternalMetricValueList with one value for each cluster and role that is asked for."""
        if metric not in GAUGES:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{metric} is none of {', '.join(GAUGES)}")
        try:
            wanted = parse(selector)
        except SelectorError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._check_known()
        if not self._workers.groups(namespace, wanted):
            raise RefusedError(HTTPStatus.NOT_FOUND, f"namespace {namespace} has no workers with {selector}")
        before = self._workers.groups(namespace, wanted)
        await self._scraper.refresh(worker for found in before.values() for worker in serving(found))
        now = self._clock()
        groups = self._workers.groups(namespace, wanted)
        known = {worker.uid for found in before.values() for worker in serving(found)}
        totals = [
            total(
                metric,
                group,
                # One that became ready meanwhile was not asked; it counts in the next answer.
                [worker for worker in serving(found) if worker.uid in known],
                self._scraper.readings,
                now,
            )
            for group, found in groups.items()
        ]
        return value_list(metric, totals, datetime.now(UTC))

    def _check_known(self) -> None:
        """Without the watch there is no telling who is missing in a sum."""
        lost = self._workers.lost_since
        if self._workers.known_since is None or (lost is not None and self._clock() - lost > OLDEST_SECONDS):
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the pods are not known: the API server does not answer")
