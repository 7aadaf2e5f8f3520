"""The certificates of one PDCluster: what is missing, due or wrong, whoever makes them. Pure."""

from dataclasses import dataclass

from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.transport import TLSMode
from pdcluster_operator.desired.kubernetes_tls import OPERATOR, authority_secret, certificate_secret, pod_roles
from pdcluster_operator.desired.naming import tls_identity
from pdcluster_operator.observe import Child, IssuedFacts
from pdcluster_operator.reconcile.rotation import Turn, next_step
from pdcluster_operator.reconcile.situation import Adopt, IssueCertificates, Note, Situation, Trouble, TurnAuthority
from pdcluster_operator.resources import ObjectKey

NOTES = {
    Turn.INTRODUCE: "a new certificate authority is trusted beside the old one, which still signs",
    Turn.PROMOTE: "the new certificate authority signs; the old one is still trusted",
    Turn.RETIRE: "the old certificate authority is trusted no more",
    Turn.RESTART: "the certificate authority had expired and was replaced at once",
}


@dataclass(frozen=True, slots=True)
class Certificates:
    """`pending`: what pods wait for, for people; `kept`: Secrets of the operator's own that are in use."""

    actions: tuple[Adopt | IssueCertificates | TurnAuthority, ...] = ()
    notes: tuple[Note, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    pending: str = ""
    wake_after: float | None = None
    kept: frozenset[str] = frozenset()


def certificates_of(situation: Situation) -> Certificates:
    """What is to be done about them now."""
    tls = situation.cluster.spec.tls
    if tls.mode is TLSMode.DISABLED:
        return Certificates()
    if tls.secret_name:
        return _of_user(situation, tls.secret_name)
    return _of_issuer(situation) if tls.issuer_ref else _own(situation)


def _own(situation: Situation) -> Certificates:
    cluster = situation.cluster
    name, roles = cluster.metadata.name, pod_roles(cluster.spec)
    secrets = {role: certificate_secret(name, cluster.spec.tls, role) for role in roles}
    names = {authority_secret(name), *secrets.values()}
    found = {entry: _secret(situation, entry) for entry in sorted(names)}
    strange = [child for child in found.values() if child and child.owner != cluster.metadata.uid]
    foreign = [child.key.name for child in strange if not _comes_home(cluster, child)]
    if foreign:
        message = f"not the operator's, and left alone: {', '.join(f'Secret {entry}' for entry in foreign)}"
        return Certificates(troubles=(Trouble("NameConflict", message),), kept=frozenset(names))
    if strange:
        return Certificates(tuple(Adopt(child) for child in strange), kept=frozenset(names))
    authority = _facts(found[authority_secret(name)])
    if authority and authority.problem:
        message = f"Secret {authority_secret(name)}: {authority.problem}; once it is deleted, a new one is made"
        return Certificates(troubles=(Trouble("CertificatesBroken", message),), kept=frozenset(names))
    leaves = {role: _facts(found[secret]) for role, secret in secrets.items()}
    return _next(situation, authority, leaves, frozenset(names))


def _comes_home(cluster: PDCluster, child: Child) -> bool:
    """Whether a Secret that nobody owns was made for this very cluster, or was handed to it.

    Its label and name are not enough: whoever puts an authority in the place of one to come could then sign for pods.
    """
    facts, metadata = _facts(child), cluster.metadata
    return bool(facts and not child.owner and (facts.made_for == metadata.uid or facts.handed_to == metadata.name))


def _next(
    situation: Situation,
    authority: CertificateFacts | None,
    leaves: dict[str, CertificateFacts | None],
    kept: frozenset[str],
) -> Certificates:
    """The next step of a rotation; a paused cluster goes on with one, and does not begin to be made."""
    metadata, now = situation.cluster.metadata, situation.now
    if authority is None and situation.cluster.spec.paused:
        return Certificates(kept=kept)
    names = {role: tls_identity(role, metadata.name, metadata.namespace) for role in leaves}
    step = next_step(authority, leaves, names, situation.periods, now)
    if step.turn:
        secret = situation.child("Secret", authority_secret(metadata.name))
        turn = TurnAuthority(step.turn, secret.version if secret else "")
        return Certificates((turn,), (Note(step.turn.value, NOTES[step.turn]),), kept=kept)
    if step.roles:
        renewed = [role for role in step.roles if authority and leaves[role]]
        text = f"new certificates for {', '.join(renewed)}"
        notes = (Note("CertificatesIssued", text),) if renewed else ()
        return Certificates((IssueCertificates(step.roles, is_first=authority is None),), notes, kept=kept)
    wake = None if step.due is None else max(step.due - now, 0.05)
    return Certificates(wake_after=wake, kept=kept)


def _of_user(situation: Situation, secret: str) -> Certificates:
    """One Secret for all: it must name every role, and the operator."""
    facts, metadata = situation.user_certificate, situation.cluster.metadata
    if facts is None:
        return Certificates()
    roles = (*pod_roles(situation.cluster.spec), OPERATOR)
    wanted = [tls_identity(role, metadata.name, metadata.namespace) for role in roles]
    return Certificates(troubles=_problems(facts, secret, wanted, situation.now))


def _of_issuer(situation: Situation) -> Certificates:
    cluster = situation.cluster
    if "Certificate" in situation.absent:
        message = "spec.tls.issuerRef needs cert-manager: the API server has no Certificate of cert-manager.io/v1"
        return Certificates(troubles=(Trouble("CertManagerNotInstalled", message),))
    pending: list[str] = []
    troubles: list[Trouble] = []
    for role in (*pod_roles(cluster.spec), OPERATOR):
        name = certificate_secret(cluster.metadata.name, cluster.spec.tls, role)
        facts = _facts(_secret(situation, name))
        if facts is None:
            issued = situation.child("Certificate", name)
            told = issued.facts.message if issued and isinstance(issued.facts, IssuedFacts) else ""
            pending.append(f"{name} ({told})" if told else name)
        else:
            identity = tls_identity(role, cluster.metadata.name, cluster.metadata.namespace)
            troubles += _problems(facts, name, [identity], situation.now)
    text = f"waiting for cert-manager to issue {', '.join(pending)}" if pending else ""
    return Certificates(troubles=tuple(troubles), pending=text)


def _problems(facts: CertificateFacts, secret: str, names: list[str], now: float) -> tuple[Trouble, ...]:
    missing = [name for name in names if name not in facts.names]
    if facts.problem:
        return (Trouble("CertificateInvalid", f"Secret {secret}: {facts.problem}"),)
    if not facts.issuer:
        return (Trouble("CertificateInvalid", f"Secret {secret}: ca.crt holds no authority that signed tls.crt"),)
    if missing:
        return (Trouble("CertificateInvalid", f"Secret {secret}: tls.crt lacks {', '.join(missing)}"),)
    if not facts.not_before <= now < facts.not_after:
        word = "has expired" if now >= facts.not_after else "is not valid yet"
        return (Trouble("CertificateExpired", f"Secret {secret}: tls.crt {word}"),)
    return ()


def _secret(situation: Situation, name: str) -> Child | None:
    """Whoever's it is: cert-manager owns what it issues."""
    return situation.children.get(ObjectKey("Secret", situation.cluster.metadata.namespace, name))


def _facts(child: Child | None) -> CertificateFacts | None:
    return child.facts if child and isinstance(child.facts, CertificateFacts) else None
