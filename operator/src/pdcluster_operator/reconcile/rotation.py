"""Rotation of a cluster's own certificates: from the stored material and the time to the next step. Pure.

    steady ── the authority is old ──> trusting: a new authority is in the bundle, the old one still signs
    trusting ── every pod has the bundle ──> replacing: the new one signs, the old one is still trusted
    replacing ── every pod has its new leaf ──> steady: the old one is out

A pod has what a Secret holds after at most two sync periods of its kubelet. Where a rotation stands is in the
authority's Secret, and since when each leaf is there is in the leaf itself: an operator that starts anew goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.certificates import CLOCK_SKEW

KEPT_SHARE = 1 / 3
"""Of a certificate's life: it is replaced when so much is left."""
SKEW = CLOCK_SKEW.total_seconds()


class Phase(StrEnum):
    STEADY = ""
    TRUSTING = "Trusting"
    REPLACING = "Replacing"


class Turn(StrEnum):
    """What is done to the authority; the values are the reasons of events."""

    INTRODUCE = "AuthorityIntroduced"
    """STEADY to TRUSTING."""
    PROMOTE = "AuthorityPromoted"
    """TRUSTING to REPLACING."""
    RETIRE = "AuthorityRetired"
    """REPLACING to STEADY."""
    RESTART = "AuthorityReplaced"
    """To REPLACING at once: the authority has expired, so that nobody is kept waiting by whom it signed."""


@dataclass(frozen=True, slots=True)
class Periods:
    """In seconds. `sync`: how long a kubelet may take to notice that a Secret has changed."""

    authority: float = 3650 * 86400.0
    leaf: float = 365 * 86400.0
    sync: float = 60.0

    @property
    def propagation(self) -> float:
        return 2 * self.sync


DEFAULT_PERIODS = Periods()


@dataclass(frozen=True, slots=True)
class Rotation:
    """A turn of the authority, or leaves to be issued, or neither until `due` (Unix time)."""

    turn: Turn | None = None
    roles: tuple[str, ...] = ()
    due: float | None = None


def next_step(
    authority: CertificateFacts | None,
    leaves: Mapping[str, CertificateFacts | None],
    names: Mapping[str, str],
    periods: Periods,
    now: float,
) -> Rotation:
    """`leaves` and `names` by role: what there is, and the DNS name it must be for. The authority has no problem."""
    if authority is None:
        return Rotation(roles=tuple(leaves))
    if now >= authority.not_after:
        return Rotation(turn=Turn.RESTART)
    outdated = tuple(role for role, leaf in leaves.items() if not is_good(leaf, authority, names[role], now))
    if outdated:
        return Rotation(roles=outdated)
    issued = [leaf.not_before + SKEW for leaf in leaves.values() if leaf]
    everywhere = max([authority.since, *issued]) + periods.propagation
    replaced = min([renewal(leaf) for leaf in leaves.values() if leaf], default=everywhere)
    turn, due = {
        Phase.STEADY: (Turn.INTRODUCE, renewal(authority)),
        Phase.TRUSTING: (Turn.PROMOTE, everywhere),
        Phase.REPLACING: (Turn.RETIRE, everywhere),
    }[phase_of(authority)]
    return Rotation(turn=turn) if now >= due else Rotation(due=min(due, replaced))


def phase_of(authority: CertificateFacts) -> Phase:
    """A phase that this operator does not know counts as the last one: what is trusted stays trusted for a while."""
    return Phase(authority.phase) if authority.phase in set(Phase) else Phase.REPLACING


def is_good(leaf: CertificateFacts | None, authority: CertificateFacts, name: str, now: float) -> bool:
    """Whether a leaf is for the name, by this authority, beside what is trusted now, and lasts."""
    if leaf is None or leaf.problem or name not in leaf.names:
        return False
    return leaf.issuer == authority.key and leaf.trust == authority.trust and now < renewal(leaf)


def renewal(certificate: CertificateFacts) -> float:
    """When a certificate is to be replaced."""
    begin = certificate.not_before + SKEW
    return certificate.not_after - (certificate.not_after - begin) * KEPT_SHARE
