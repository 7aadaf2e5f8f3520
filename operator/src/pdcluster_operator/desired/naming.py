"""Names of a PDCluster's pods and of what belongs to them. All are derived; none is stored."""

WORKER_ROLES = ("prefill", "decode", "mixed")
ROUTER = "router"


def group_name(cluster: str, role: str) -> str:
    """Of a role's StatefulSet, headless Service and PDRoleScaler, or of the router's Deployment and Service."""
    return f"{cluster}-{role}"


def pod_name(cluster: str, role: str, index: int) -> str:
    return f"{group_name(cluster, role)}-{index}"


def tls_identity(role: str, cluster: str, namespace: str) -> str:
    """The DNS name in a pod's certificate, by which its peers know what it may do."""
    return f"{role}.{cluster}.{namespace}.pdcluster"


def cluster_identity(cluster: str, namespace: str) -> str:
    """What workers and routers are told with `--cluster`."""
    return f"{cluster}.{namespace}"
