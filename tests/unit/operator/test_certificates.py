"""The authority's leaves are valid for their names, at both ends of a connection, and for nobody else's."""

import datetime
import stat

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from operator_manifests import edited

from pdcluster_operator.certificates import Authority
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.local.tls import write_certificates

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def verifier(authority_pem, name, when=NOW):
    store = Store(x509.load_pem_x509_certificates(authority_pem))
    return PolicyBuilder().store(store).time(when).build_server_verifier(x509.DNSName(name))


def leaf(authority, name="prefill.demo.default.pdcluster"):
    pair = authority.issue([name], ["127.0.0.1"], NOW, DAY)
    return x509.load_pem_x509_certificate(pair.certificate)


def test_a_leaf_is_valid_for_its_name():
    authority = Authority("demo", NOW, DAY)
    verifier(authority.certificate, "prefill.demo.default.pdcluster").verify(leaf(authority), [])


@pytest.mark.parametrize(
    ("name", "when"),
    [("decode.demo.default.pdcluster", NOW), ("prefill.demo.default.pdcluster", NOW + 2 * DAY)],
)
def test_not_for_another_name_nor_later(name, when):
    authority = Authority("demo", NOW, DAY)
    with pytest.raises(VerificationError):
        verifier(authority.certificate, name, when).verify(leaf(authority), [])


def test_another_authority_does_not_count():
    authority, other = Authority("demo", NOW, DAY), Authority("demo", NOW, DAY)
    with pytest.raises(VerificationError):
        verifier(other.certificate, "prefill.demo.default.pdcluster").verify(leaf(authority), [])


def test_files_of_a_run_are_private(tmp_path):
    paths = write_certificates(parse(edited()), tmp_path)
    assert set(paths) == {"prefill", "decode", "router"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())
