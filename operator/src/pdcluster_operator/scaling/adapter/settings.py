"""How the adapter is set up, from its environment: read once, at the start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pdcluster_operator.errors import OperatorError

NAME = "pdcluster-metrics-adapter"


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """`kubeconfig` empty: the pod's service account."""

    namespace: str
    service: str = NAME
    """The Service that the APIService must point to, in the adapter's own namespace."""
    secret: str = f"{NAME}-tls"
    """Where all replicas find the one certificate; made empty by the chart, filled by the first replica."""
    host: str = "0.0.0.0"
    port: int = 8443
    health_port: int = 8000
    kubeconfig: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names by which the API server calls."""
        return (f"{self.service}.{self.namespace}.svc", f"{self.service}.{self.namespace}.svc.cluster.local")


def from_environment(environment: Mapping[str, str] = os.environ) -> AdapterSettings:
    """Raises OperatorError naming a variable that is missing or wrong."""
    namespace = environment.get("POD_NAMESPACE", "")
    if not namespace:
        raise OperatorError("POD_NAMESPACE is not set: the namespace of the adapter's Service and Secret")
    service = environment.get("PDC_ADAPTER_SERVICE") or NAME
    return AdapterSettings(
        namespace=namespace,
        service=service,
        secret=environment.get("PDC_ADAPTER_SECRET") or f"{service}-tls",
        host=environment.get("PDC_HOST") or "0.0.0.0",
        port=_port(environment, "PDC_ADAPTER_PORT", 8443),
        health_port=_port(environment, "PDC_METRICS_PORT", 8000),
        kubeconfig=environment.get("KUBECONFIG", ""),
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isdigit() and 0 < int(text) < 1 << 16):
        raise OperatorError(f"{name}={text!r} is not a port")
    return int(text)
