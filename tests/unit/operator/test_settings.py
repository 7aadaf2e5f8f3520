"""What the operator reads from its environment, and what it says of a wrong variable."""

import pytest

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.settings import from_environment

GIVEN = {"PDC_WORKER_IMAGE": "worker:1", "POD_NAMESPACE": "system", "POD_NAME": "operator-0"}


def test_what_is_not_given_has_its_default() -> None:
    settings = from_environment(GIVEN)
    assert (settings.worker_image, settings.namespace, settings.identity) == ("worker:1", "system", "operator-0")
    assert (settings.namespaces, settings.api_server_ports) == ((), (443, 6443))


def test_lists_are_parted_by_commas() -> None:
    settings = from_environment({**GIVEN, "PDC_NAMESPACES": "a, b,", "PDC_API_SERVER_PORTS": "16443"})
    assert (settings.namespaces, settings.api_server_ports) == (("a", "b"), (16443,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PDC_WORKER_IMAGE", ""),
        ("PDC_METRICS_PORT", "many"),
        ("PDC_LEASE_SECONDS", "15s"),
        ("PDC_API_SERVER_PORTS", "https"),
        ("PDC_API_SERVER_PORTS", "443,70000"),
    ],
)
def test_a_wrong_one_is_named(name: str, value: str) -> None:
    with pytest.raises(OperatorError, match=name):
        from_environment({**GIVEN, name: value})
