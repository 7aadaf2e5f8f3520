"""The answer of `pdc why`: one headline, and the sentences behind it, the first limit first. Pure."""

from dataclasses import dataclass

from pdcluster_operator.cli.view import condition_of, is_current, is_ready
from pdcluster_operator.cli.why_facts import Cause, Facts, Finding
from pdcluster_operator.cli.why_pods import moving, starting
from pdcluster_operator.cli.why_scale import asking, limiting, pods_of, targets_of


@dataclass(frozen=True, slots=True)
class Answer:
    role: str
    desired: int
    effective: int
    existing: int
    ready: int
    findings: tuple[Finding, ...]

    @property
    def headline(self) -> str:
        numbers = f"{self.desired} asked for, {self.effective} given, {self.existing} pods exist, {self.ready} ready"
        return f"{self.role}: {numbers}"


def answer(facts: Facts) -> Answer:
    """What limits the role's scale now. The role is one of the cluster's."""
    found = targets_of(facts)
    target, pods = found[facts.role], pods_of(facts, facts.role)
    findings = [*_operator(facts), *asking(facts, target), *limiting(facts, found)]
    findings += [*moving(facts, target), *starting(facts, target)]
    if not any(finding.limits for finding in findings):
        findings.append(Finding(Cause.NOTHING, "nothing limits it", limits=False))
    ready = sum(is_ready(pod) for pod in pods)
    return Answer(facts.role, target.desired, target.effective, len(pods), ready, tuple(findings))


def _operator(facts: Facts) -> list[Finding]:
    """What keeps the operator from acting at all."""
    found = []
    if facts.cluster.spec.paused:
        found.append(Finding(Cause.PAUSED, "spec.paused is true: the operator changes nothing"))
    if not is_current(facts.manifest):
        text = "the operator has not told of the latest spec yet: does it run (`pdc preflight`)?"
        found.append(Finding(Cause.OPERATOR_BEHIND, text))
    degraded = condition_of(facts.manifest, "Degraded")
    if degraded and degraded.status == "True" and degraded.reason in REFUSALS:
        found.append(Finding(Cause.INVALID, f"the PDCluster is degraded: {degraded.reason}: {degraded.message}"))
    return found


REFUSALS = frozenset({"InvalidSpec", "InvalidPodTemplate", "NameConflict", "QuotaExceeded", "Forbidden"})
"""Reasons for Degraded that keep pods from being made; the others are told from the pods themselves."""
