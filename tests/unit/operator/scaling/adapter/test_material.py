"""The adapter's certificate over the years: always trusted, never expired, and nothing made without need."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pdcluster_operator.scaling.adapter.material import Material, MaterialError, renewed, restored, stored

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("adapter.system.svc", "adapter.system.svc.cluster.local")


def days(number: float) -> datetime:
    return START + timedelta(days=number)


def made(now: datetime = START) -> Material:
    return renewed(None, NAMES, now, b"")


def is_trusted(material: Material, bundle: bytes) -> bool:
    """Whether one of the bundle's authorities has signed the leaf."""
    leaf = x509.load_pem_x509_certificate(material.leaf.certificate)
    for authority in x509.load_pem_x509_certificates(bundle):
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, InvalidSignature):
            continue
        return True
    return False


def test_a_secret_holds_all_of_it() -> None:
    material = made()
    assert restored(stored(material)) == material
    assert restored({}) is None


@pytest.mark.parametrize("key", ["tls.crt", "ca.key", "bundle.crt"])
def test_a_secret_with_anything_else_is_refused(key: str) -> None:
    data = stored(made())
    with pytest.raises(MaterialError):
        restored({**data, key: base64.b64encode(b"junk").decode()})
    with pytest.raises(MaterialError):
        restored({name: value for name, value in data.items() if name != key})


def test_the_leaf_has_the_names_of_the_service() -> None:
    leaf = x509.load_pem_x509_certificate(made().leaf.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == list(NAMES)


def test_while_nothing_is_due_nothing_changes() -> None:
    material = made()
    assert renewed(material, NAMES, days(59), material.bundle) is material


def test_a_leaf_is_replaced_a_month_before_its_end_under_the_same_authority() -> None:
    material = made()
    later = renewed(material, NAMES, days(61), material.bundle)
    assert later.leaf != material.leaf
    assert later.bundle == material.bundle
    assert is_trusted(later, material.bundle)


def test_other_names_make_another_leaf() -> None:
    material = made()
    assert renewed(material, ("other.system.svc",), days(1), material.bundle).leaf != material.leaf


def test_a_new_authority_is_trusted_before_its_leaf_is_served() -> None:
    material = renewed(made(), NAMES, days(3260), b"")
    announced = renewed(material, NAMES, days(3290), material.bundle)
    assert announced.leaf == material.leaf
    assert len(x509.load_pem_x509_certificates(announced.bundle)) == 2

    unheard = renewed(announced, NAMES, days(3290), material.bundle)
    assert unheard is announced, "the API server does not trust the new one yet"

    served = renewed(announced, NAMES, days(3290), announced.bundle)
    assert served.leaf != announced.leaf
    for entry in (announced, served):
        assert is_trusted(entry, announced.bundle)
    assert renewed(served, NAMES, days(3291), served.bundle) is served


def test_after_a_long_sleep_the_leaf_does_not_wait() -> None:
    material = made()
    later = renewed(material, NAMES, days(4000), material.bundle)
    assert is_trusted(later, later.bundle)
    leaf = x509.load_pem_x509_certificate(later.leaf.certificate)
    assert leaf.not_valid_after_utc > days(4000)
    assert len(x509.load_pem_x509_certificates(later.bundle)) == 1, "an authority that has ended is trusted no more"
