"""Checks of the cluster itself: its CustomResourceDefinitions, the operator, the caller's rights. Pure."""

from collections.abc import Iterable
from datetime import datetime

from pdcluster_operator.cli.checks.facts import Check, Facts, Found, Right, Verdict
from pdcluster_operator.crd.schema import definitions
from pdcluster_operator.resources import PD_CLUSTER, VERSION, Manifest

INSTALL = "install the manifests or the chart of this version"


def crds(facts: Facts) -> Iterable[Check]:
    """Each is there, serves this version, and has this version's schema."""
    wanted = {entry["metadata"]["name"]: entry for entry in definitions().values()}
    for name, definition in wanted.items():
        yield _definition(name, definition, facts.definitions.get(name, Found(allowed=False)))


def _definition(name: str, wanted: Manifest, found: Found) -> Check:
    title = f"crd {name}"
    if not found.allowed:
        return Check(title, Verdict.WARN, "you may not read CustomResourceDefinitions", "ask an administrator")
    if found.manifest is None:
        return Check(title, Verdict.FAIL, "is not installed", INSTALL)
    versions = {entry["name"]: entry for entry in found.manifest["spec"]["versions"]}
    live = versions.get(VERSION)
    if live is None or not live.get("served"):
        return Check(title, Verdict.FAIL, f"does not serve {VERSION}, only {', '.join(sorted(versions))}", INSTALL)
    conditions = (found.manifest.get("status") or {}).get("conditions") or []
    if not any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions):
        return Check(title, Verdict.FAIL, "is not established", "look at its conditions with `kubectl describe crd`")
    if live["schema"] != wanted["spec"]["versions"][0]["schema"]:
        return Check(title, Verdict.WARN, "has the schema of another version of pdcluster", INSTALL)
    return Check(title, Verdict.OK, "is installed, in this version")


def operator(facts: Facts) -> Iterable[Check]:
    """Somebody holds the operator's Lease, and renews it."""
    title = "operator"
    if facts.leases is None:
        yield Check(title, Verdict.WARN, "you may not list Leases: unknown whether it runs", "ask an administrator")
        return
    if not facts.leases:
        yield Check(title, Verdict.FAIL, "there is no Lease of it: it has never run here", INSTALL)
        return
    held = [lease for lease in facts.leases if lease["spec"].get("holderIdentity")]
    fresh = [lease for lease in held if is_fresh(lease, facts.now) or _namespace(lease) in facts.renewed]
    if fresh:
        names = ", ".join(f"{lease['spec']['holderIdentity']} in {_namespace(lease)}" for lease in fresh)
        yield Check(title, Verdict.OK, f"runs: {names}")
    else:
        remedy = "look at its pods, and at their logs"
        names = ", ".join(_namespace(lease) for lease in facts.leases)
        yield Check(title, Verdict.FAIL, f"does not renew its Lease in {names}: it does not run", remedy)


def is_fresh(lease: Manifest, now: float) -> bool:
    """By our own clock, which may differ from the holder's."""
    renewed = lease["spec"].get("renewTime")
    lasts = float(lease["spec"].get("leaseDurationSeconds") or 15)
    return bool(renewed) and abs(now - datetime.fromisoformat(renewed).timestamp()) <= lasts


def rights(facts: Facts) -> Iterable[Check]:
    """What the caller may do in the namespace; creating PDClusters is what a manifest needs."""
    missing = [right for right, allowed in facts.rights.items() if not allowed]
    if not missing:
        yield Check("rights", Verdict.OK, f"you may do all that pdc does in namespace {facts.namespace}")
        return
    remedy = "ask an administrator for a Role, or use --namespace or --context"
    for right in missing:
        group = f".{right.group}" if right.group else ""
        message = f"you may not {right.verb} {right.plural}{group} in namespace {facts.namespace}"
        verdict = Verdict.FAIL if _is_needed(right, facts) else Verdict.WARN
        yield Check("rights", verdict, f"{message}: {right.needed_for} needs it", remedy)


def _is_needed(right: Right, facts: Facts) -> bool:
    return facts.cluster is not None and right.plural == PD_CLUSTER.plural and right.verb in {"create", "patch"}


def _namespace(lease: Manifest) -> str:
    return str(lease["metadata"]["namespace"])
