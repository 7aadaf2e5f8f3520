"""Whether a manifest's pods find nodes: devices that nodes have, and devices that other pods hold. Pure.

Pods are placed one by one, the largest first, on the node that is left with the least. That is not what a scheduler
does, but where it finds a place for all, there is one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pdcluster_operator.cli.checks.facts import Check, Facts, Verdict
from pdcluster_operator.crd.cluster import ClusterSpec
from pdcluster_operator.crd.role import Role, Toleration
from pdcluster_operator.crd.transport import KVProtocol
from pdcluster_operator.crd.values import amount
from pdcluster_operator.desired import labels
from pdcluster_operator.resources import Manifest

Devices = dict[str, int]


@dataclass(frozen=True, slots=True)
class Demand:
    """Pods of a role, each with so many devices, on nodes that it accepts."""

    role: str
    pods: int
    devices: Devices
    spec: Role


def devices(facts: Facts) -> Iterable[Check]:
    """Nodes have the GPUs and RDMA devices that the manifest's first pods ask for."""
    if facts.cluster is None:
        return
    wanted = demands(facts.cluster.spec)
    if not any(demand.devices for demand in wanted):
        yield Check("devices", Verdict.OK, "the manifest asks for no GPUs and no RDMA devices")
        return
    if facts.nodes is None:
        remedy = "ask an administrator which nodes have them"
        yield Check("devices", Verdict.WARN, "you may not list nodes: unknown whether there are devices", remedy)
        return
    usable = [node for node in facts.nodes if not (node.get("spec") or {}).get("unschedulable")]
    missing = left_over(wanted, usable, {})
    if missing:
        yield Check("devices", Verdict.FAIL, _sentence(missing, "no node could ever take"), _remedy(missing))
        return
    held = None if facts.pods is None else in_use(facts.pods, facts.cluster.metadata.name, facts.namespace)
    if held is None:
        yield Check("devices", Verdict.OK, "nodes have them; what other pods hold is unknown: you may not list pods")
    elif missing := left_over(wanted, usable, held):
        remedy = "free devices, add nodes, or lower the number of pods; until then pods stay Pending"
        yield Check("devices", Verdict.WARN, _sentence(missing, "other pods hold what is wanted for"), remedy)
    else:
        yield Check("devices", Verdict.OK, f"nodes have room for {_total(wanted)}")


def demands(spec: ClusterSpec) -> list[Demand]:
    """What the first pods of each role ask for."""
    found = []
    for name, role in spec.roles().items():
        asked: Devices = {role.gpu.resource_name: role.gpu.count} if role.gpu.count else {}
        if spec.transport.kv.protocol is KVProtocol.RDMA:
            rdma = spec.transport.kv.rdma
            asked[rdma.resource_name if rdma else "rdma/hca"] = rdma.count if rdma else 1
        found.append(Demand(name, role.first_replicas, asked, role))
    return found


def left_over(
    wanted: Sequence[Demand], nodes: Sequence[Manifest], held: Mapping[str, Devices]
) -> list[tuple[Demand, int]]:
    """The pods that find no place, as demands with their number."""
    free = {node["metadata"]["name"]: _allocatable(node, held) for node in nodes}
    missing = []
    for demand in sorted(wanted, key=lambda entry: -sum(entry.devices.values())):
        fitting = [node["metadata"]["name"] for node in nodes if accepts(demand.spec, node)]
        placed = sum(_place(demand.devices, fitting, free) for _ in range(demand.pods))
        if placed < demand.pods:
            missing.append((demand, demand.pods - placed))
    return missing


def accepts(role: Role, node: Manifest) -> bool:
    """Whether a role's pods may be scheduled there, by its nodeSelector and tolerations."""
    marks = node["metadata"].get("labels") or {}
    if any(marks.get(key) != value for key, value in (role.node_selector or {}).items()):
        return False
    taints = (node.get("spec") or {}).get("taints") or []
    hard = [taint for taint in taints if taint["effect"] in {"NoSchedule", "NoExecute"}]
    return all(any(_tolerates(entry, taint) for entry in role.tolerations) for taint in hard)


def in_use(pods: Iterable[Manifest], cluster: str, namespace: str) -> dict[str, Devices]:
    """Devices that pods hold, by node; the cluster's own are about to be the manifest's."""
    found: dict[str, Devices] = {}
    for pod in pods:
        metadata, spec = pod["metadata"], pod.get("spec") or {}
        own = metadata.get("namespace") == namespace and (metadata.get("labels") or {}).get(labels.CLUSTER) == cluster
        over = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if own or over or not spec.get("nodeName"):
            continue
        taken = found.setdefault(spec["nodeName"], {})
        for container in spec.get("containers") or []:
            for name, quantity in ((container.get("resources") or {}).get("limits") or {}).items():
                taken[name] = taken.get(name, 0) + _count(quantity)
    return found


def _place(wanted: Devices, names: Iterable[str], free: dict[str, Devices]) -> bool:
    """Takes the devices of one pod from the node that has the fewest to spare."""
    fitting = [name for name in names if all(free[name].get(kind, 0) >= number for kind, number in wanted.items())]
    if not fitting:
        return False
    name = min(fitting, key=lambda entry: (sum(free[entry].get(kind, 0) for kind in wanted), entry))
    for kind, number in wanted.items():
        free[name][kind] -= number
    return True


def _allocatable(node: Manifest, held: Mapping[str, Devices]) -> Devices:
    taken = held.get(node["metadata"]["name"], {})
    found = (node.get("status") or {}).get("allocatable") or {}
    return {name: _count(quantity) - taken.get(name, 0) for name, quantity in found.items() if "/" in name}


def _count(quantity: Any) -> int:
    """Devices are whole numbers; whatever is not a quantity counts as none."""
    try:
        return int(amount(str(quantity)).to_integral_value())
    except (ArithmeticError, KeyError):
        return 0


def _tolerates(entry: Toleration, taint: Mapping[str, str]) -> bool:
    if entry.effect is not None and entry.effect.value != taint["effect"]:
        return False
    if entry.key is None:
        return entry.operator == "Exists"
    return entry.key == taint["key"] and (entry.operator == "Exists" or (entry.value or "") == taint.get("value", ""))


def _sentence(missing: Sequence[tuple[Demand, int]], words: str) -> str:
    parts = [f"{number} {demand.role} pods with {_named(demand.devices)} each" for demand, number in missing]
    return f"{words} {' and '.join(parts)}"


def _remedy(missing: Sequence[tuple[Demand, int]]) -> str:
    names = sorted({name for demand, _ in missing for name in demand.devices})
    return f"add nodes whose device plugin offers {', '.join(names) or 'room'}, or check nodeSelector and tolerations"


def _named(found: Mapping[str, int]) -> str:
    return " and ".join(f"{number} {name}" for name, number in found.items()) or "no devices"


def _total(wanted: Sequence[Demand]) -> str:
    total: dict[str, Decimal] = {}
    for demand in wanted:
        for name, number in demand.devices.items():
            total[name] = total.get(name, Decimal(0)) + number * demand.pods
    return ", ".join(f"{number} {name}" for name, number in total.items())
