"""Who may reach whom under a set of NetworkPolicies, as the API's own rules define it. Pure.

A pod that no policy of a direction selects is open in that direction; otherwise the union of the rules of all policies
that select it counts. A connection needs the egress of one end and the ingress of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """A pod, or with no labels at all something outside of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_pod(self) -> bool:
        return bool(self.namespace)


OUTSIDE = End()


def pod(namespace: str, labels: Mapping[str, str]) -> End:
    return End(namespace, labels, {"kubernetes.io/metadata.name": namespace})


def may_reach(policies: Sequence[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from one to the other is let through."""
    leaves = _allows(policies, "Egress", source, target, port, protocol)
    return leaves and _allows(policies, "Ingress", target, source, port, protocol)


def _allows(policies: Sequence[Policy], direction: str, here: End, there: End, port: int, protocol: str) -> bool:
    selecting = [policy for policy in policies if direction in _types(policy) and _selects(policy, here)]
    if not selecting:
        return True
    peers = "to" if direction == "Egress" else "from"
    rules = [rule for policy in selecting for rule in policy["spec"].get(direction.lower()) or []]
    namespaces = {policy["metadata"]["namespace"] for policy in selecting}
    assert len(namespaces) == 1, "policies select pods of their own namespace"
    return any(
        _names_port(rule.get("ports"), port, protocol) and _names_peer(rule.get(peers), there, here.namespace)
        for rule in rules
    )


def _types(policy: Policy) -> list[str]:
    """Ingress always, egress when rules for it are there, unless the policy says itself."""
    spec = policy["spec"]
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _selects(policy: Policy, end: End) -> bool:
    return end.namespace == policy["metadata"]["namespace"] and matches(policy["spec"]["podSelector"], end.labels)


def _names_port(ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    """No ports: all of them."""
    if not ports:
        return True
    return any(
        entry.get("protocol", "TCP") == protocol
        and ("port" not in entry or entry["port"] <= port <= entry.get("endPort", entry["port"]))
        for entry in ports
    )


def _names_peer(peers: Sequence[Mapping[str, Any]] | None, end: End, namespace: str) -> bool:
    """No peers: everybody, in and outside of the cluster."""
    if not peers:
        return True
    return any(_is_peer(peer, end, namespace) for peer in peers)


def _is_peer(peer: Mapping[str, Any], end: End, namespace: str) -> bool:
    if "ipBlock" in peer:
        raise NotImplementedError("no policy of the product names addresses")
    if not end.is_pod:
        return False
    if "namespaceSelector" in peer:
        lives_there = matches(peer["namespaceSelector"], end.namespace_labels)
    else:
        lives_there = end.namespace == namespace
    return lives_there and matches(peer.get("podSelector", {}), end.labels)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or [])


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case unknown:
            raise ValueError(f"no such operator: {unknown}")
