"""The kinds that the operator reads or writes, and where the API server has them. Nothing else is ever asked for."""

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
"""An object as it is on the wire. Its schema is the API server's, so that a typed copy here could only lag behind."""

GROUP = "pdcluster.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind; all of them are namespaced."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The URL path of one object, of a part of it, or of a collection: without namespace, that of all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        middle = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (root + middle, self.plural, name, subresource) if part)


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Which object: its kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


PD_CLUSTER = Resource(GROUP, VERSION, "pdclusters", "PDCluster")
PD_ROLE_SCALER = Resource(GROUP, VERSION, "pdrolescalers", "PDRoleScaler")
POD = Resource("", "v1", "pods", "Pod")
EVENT = Resource("events.k8s.io", "v1", "events", "Event")
LEASE = Resource("coordination.k8s.io", "v1", "leases", "Lease")
STATEFUL_SET = Resource("apps", "v1", "statefulsets", "StatefulSet")
DEPLOYMENT = Resource("apps", "v1", "deployments", "Deployment")
CONTROLLER_REVISION = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
SERVICE = Resource("", "v1", "services", "Service")
CONFIG_MAP = Resource("", "v1", "configmaps", "ConfigMap")
SECRET = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNT = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLE = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
POD_DISRUPTION_BUDGET = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICY = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
AUTOSCALER = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")

CERTIFICATE = Resource("cert-manager.io", "v1", "certificates", "Certificate")
POD_MONITOR = Resource("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor")

PREREQUISITES = (SERVICE_ACCOUNT, ROLE, SECRET, SERVICE, NETWORK_POLICY, CONTROLLER_REVISION)
"""The kinds of children that others need, and that need none themselves."""

CHILDREN = (
    *PREREQUISITES,
    ROLE_BINDING,
    STATEFUL_SET,
    DEPLOYMENT,
    POD_DISRUPTION_BUDGET,
    PD_ROLE_SCALER,
    AUTOSCALER,
)
"""The kinds of a PDCluster's children, in the order in which they are applied: what others need comes first."""

OPTIONAL = (CERTIFICATE, POD_MONITOR)
"""Kinds of other projects, which an API server may lack: children where a spec asks for them."""

BY_KIND = {resource.kind: resource for resource in (PD_CLUSTER, POD, EVENT, LEASE, *CHILDREN, *OPTIONAL)}


def key_of(manifest: Manifest) -> ObjectKey:
    """The identity of a manifest that has a namespace."""
    metadata = manifest["metadata"]
    return ObjectKey(manifest["kind"], metadata["namespace"], metadata["name"])
