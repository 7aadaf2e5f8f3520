"""Seconds until certificates end, for Prometheus: worked out when it is asked, from what the operator knows anyway."""

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pdcluster_operator.cache import Cache
from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.observe import ClusterKey

AUTHORITY = "ca"


class ExpiryCollector(Collector):
    """`others` gives the certificates in Secrets of users, by cluster."""

    def __init__(
        self,
        cache: Cache,
        others: Callable[[], Mapping[ClusterKey, CertificateFacts]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._others = others
        self._clock = clock

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One value for each cluster's authority, and one for the certificate of its pods that ends first."""
        family = GaugeMetricFamily(
            "pdc_operator_certificate_expiry_seconds",
            "Seconds until a PDCluster's authority, or the first of its pods' certificates, is valid no more",
            labels=["namespace", "cluster", "kind"],
        )
        for (namespace, cluster, kind), end in sorted(self._ends().items()):
            family.add_metric([namespace, cluster, kind], end - self._clock())
        yield family

    def _ends(self) -> dict[tuple[str, str, str], float]:
        found: dict[tuple[str, str, str], float] = {}
        for key, view in self._cache.views():
            for child in view.children.values():
                if isinstance(child.facts, CertificateFacts) and not child.facts.problem:
                    kind = "authority" if child.role == AUTHORITY else "leaf"
                    _keep_first(found, (*key, kind), child.facts.not_after)
        for key, facts in self._others().items():
            if not facts.problem:
                _keep_first(found, (*key, "leaf"), facts.not_after)
        return found


def _keep_first(found: dict[tuple[str, str, str], float], name: tuple[str, str, str], end: float) -> None:
    found[name] = min(end, found.get(name, end))
