"""Checks of a manifest against its namespace: security level, metrics, secrets, storage, network. Pure."""

from collections.abc import Iterable

from pdcluster_operator.cli.checks.facts import Check, Facts, Found, Verdict
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.scaling import ScalingMode
from pdcluster_operator.crd.transport import KVProtocol
from pdcluster_operator.resources import Manifest

ENFORCE = "pod-security.kubernetes.io/enforce"
SHARED = {"ReadWriteMany", "ReadOnlyMany"}


def accepted(facts: Facts) -> Iterable[Check]:
    """The API server would take the manifest."""
    if facts.cluster is None:
        return
    if facts.refusal is not None:
        yield Check(
            "manifest", Verdict.FAIL, f"is refused: {facts.refusal}", "correct it; `pdc validate` checks it too"
        )
    elif facts.place.manifest is not None or not facts.place.allowed:
        yield Check("manifest", Verdict.OK, "is accepted by the API server")


def namespace(facts: Facts) -> Iterable[Check]:
    """It exists, is not about to go, and lets the pods in."""
    title = f"namespace {facts.namespace}"
    if not facts.place.allowed:
        yield Check(title, Verdict.WARN, "you may not read it: unknown which pods it lets in", "ask an administrator")
        return
    if facts.place.manifest is None:
        yield Check(title, Verdict.FAIL, "does not exist", f"kubectl create namespace {facts.namespace}")
        return
    if "deletionTimestamp" in facts.place.manifest["metadata"]:
        yield Check(title, Verdict.FAIL, "is being deleted", "wait until it is gone, or use another")
        return
    yield _security(title, facts.place.manifest, privileges(facts.cluster) if facts.cluster else [])


def privileges(cluster: PDCluster) -> list[str]:
    """What the manifest's pods need and the pod security levels `baseline` and `restricted` refuse."""
    spec, found = cluster.spec, []
    if spec.transport.kv.protocol is KVProtocol.RDMA:
        found.append("the capability IPC_LOCK (transport.kv.protocol is RDMA)")
    if spec.model.source.host_path is not None:
        found.append("a hostPath volume (model.source.hostPath)")
    return found


def _security(title: str, place: Manifest, needed: list[str]) -> Check:
    level = (place["metadata"].get("labels") or {}).get(ENFORCE, "")
    if needed and level in {"baseline", "restricted"}:
        name = place["metadata"]["name"]
        remedy = f"kubectl label namespace {name} {ENFORCE}=privileged --overwrite, or change the manifest"
        return Check(title, Verdict.FAIL, f"enforces {level}, which refuses {' and '.join(needed)}", remedy)
    return Check(title, Verdict.OK, f"lets the pods in (pod security: {level or 'nothing enforced'})")


def metrics(facts: Facts) -> Iterable[Check]:
    """Managed roles are scaled by External metrics, which somebody must serve."""
    if facts.cluster is None:
        return
    roles = facts.cluster.spec.roles().items()
    managed = [name for name, role in roles if role.scaling.mode is ScalingMode.MANAGED]
    found = facts.metrics_api
    if not managed:
        yield Check("metrics", Verdict.OK, "no role is Managed: external.metrics.k8s.io is not needed")
    elif not found.allowed:
        yield Check("metrics", Verdict.WARN, "you may not read APIServices: unknown who serves external metrics")
    elif found.manifest is None:
        remedy = "install the metrics adapter (the chart's metricsAdapter), prometheus-adapter or KEDA"
        message = f"nobody serves external.metrics.k8s.io, which scales {' and '.join(managed)}"
        yield Check("metrics", Verdict.FAIL, message, remedy)
    else:
        yield _served(found.manifest)


def _served(api: Manifest) -> Check:
    service = api["spec"].get("service") or {}
    owner = f"{service.get('namespace', '?')}/{service.get('name', '?')}"
    for entry in (api.get("status") or {}).get("conditions") or []:
        if entry["type"] == "Available" and entry["status"] == "True":
            return Check("metrics", Verdict.OK, f"external.metrics.k8s.io is served by {owner}")
        if entry["type"] == "Available":
            message = f"external.metrics.k8s.io belongs to {owner}, which does not serve it: {entry.get('message', '')}"
            return Check("metrics", Verdict.FAIL, message, "mend that service; nothing scales and namespaces hang")
    return Check("metrics", Verdict.WARN, f"external.metrics.k8s.io belongs to {owner}, which has not answered yet")


def references(facts: Facts) -> Iterable[Check]:
    """Secrets, service accounts and the issuer that the manifest names exist."""
    for kind, objects in (("secret", facts.secrets), ("service account", facts.accounts)):
        for name, found in objects.items():
            yield _exists(f"{kind} {name}", found, facts.namespace)
    if facts.cluster is not None and facts.cluster.spec.tls.issuer_ref is not None:
        yield _issuer(facts.issuer_api)


def _exists(title: str, found: Found, place: str) -> Check:
    if not found.allowed:
        return Check(title, Verdict.WARN, f"you may not read it in namespace {place}", "ask an administrator")
    if found.manifest is None:
        return Check(title, Verdict.FAIL, f"does not exist in namespace {place}", "make it before you apply")
    return Check(title, Verdict.OK, "exists")


def _issuer(found: Found) -> Check:
    if found.allowed and found.manifest is None:
        remedy = "install cert-manager, or leave tls.issuerRef out for the operator's own authority"
        return Check("issuer", Verdict.FAIL, "this cluster does not know certificates.cert-manager.io", remedy)
    return Check("issuer", Verdict.OK if found.allowed else Verdict.WARN, "cert-manager's kinds are installed")


def storage(facts: Facts) -> Iterable[Check]:
    """The model's volume is there, and all pods may mount it."""
    if facts.cluster is None:
        return
    host = facts.cluster.spec.model.source.host_path
    if host is not None:
        message = f"every node that runs a pod must have the model in {host.path}: that cannot be seen from here"
        yield Check("storage", Verdict.NOTE, message)
    pods = facts.cluster.spec.router.replicas
    pods += sum(role.first_replicas for role in facts.cluster.spec.roles().values())
    for name, found in facts.claims.items():
        yield _claim(f"volume claim {name}", found, facts.namespace, pods)


def _claim(title: str, found: Found, place: str, pods: int) -> Check:
    if found.manifest is None:
        return _exists(title, found, place)
    phase = (found.manifest.get("status") or {}).get("phase", "")
    modes = set(found.manifest["spec"].get("accessModes") or [])
    if phase == "Lost":
        return Check(title, Verdict.FAIL, "has lost its volume", "make a new claim, with the model in it")
    if pods > 1 and not modes & SHARED:
        message = f"has only {', '.join(sorted(modes))}: its {pods} pods must all run on one node"
        return Check(title, Verdict.WARN, message, "use a volume with ReadOnlyMany or ReadWriteMany")
    if phase != "Bound":
        message = f"is {phase or 'not bound'}: it binds when a pod uses it, or never"
        return Check(title, Verdict.WARN, message, "look at `kubectl describe pvc`; the model must be in it")
    return Check(title, Verdict.OK, "is bound")


def notes(facts: Facts) -> Iterable[Check]:
    """What the API server cannot tell."""
    if facts.cluster is None:
        return
    spec = facts.cluster.spec
    if spec.security.network_policy:
        message = "NetworkPolicies will be made; only the network plugin knows whether they are enforced"
        yield Check("network", Verdict.NOTE, message)
    if spec.transport.kv.protocol is KVProtocol.RDMA:
        message = "RDMA locks memory: container runtimes with a memlock limit must have it raised (ulimit -l unlimited)"
        yield Check("memory lock", Verdict.NOTE, message)
