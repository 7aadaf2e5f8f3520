"""Who may touch the APIService, and what of the settings is refused."""

from typing import Any

import pytest

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.scaling.adapter.keeper import ForeignOwnerError, check_owner
from pdcluster_operator.scaling.adapter.settings import AdapterSettings, from_environment

OURS = AdapterSettings("system")


def registered(**service: Any) -> dict[str, Any]:
    return {"spec": {"service": service} if service else {}}


def test_our_own_registration_is_ours() -> None:
    check_owner(registered(namespace="system", name="pdcluster-metrics-adapter"), OURS)


@pytest.mark.parametrize(
    ("service", "owner"),
    [
        ({"namespace": "monitoring", "name": "prometheus-adapter"}, "Service monitoring/prometheus-adapter"),
        (
            {"namespace": "elsewhere", "name": "pdcluster-metrics-adapter"},
            "Service elsewhere/pdcluster-metrics-adapter",
        ),
        ({}, "the API server itself"),
    ],
)
def test_anybody_elses_is_refused_by_name(service: dict[str, str], owner: str) -> None:
    with pytest.raises(ForeignOwnerError, match=owner):
        check_owner(registered(**service), OURS)


def test_the_environment_names_service_and_secret() -> None:
    found = from_environment({"POD_NAMESPACE": "system", "PDC_ADAPTER_SERVICE": "other", "PDC_ADAPTER_PORT": "6443"})
    assert (found.service, found.secret, found.port) == ("other", "other-tls", 6443)
    assert found.names[0] == "other.system.svc"


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "POD_NAMESPACE is not set"),
        ({"POD_NAMESPACE": "system", "PDC_ADAPTER_PORT": "https"}, "PDC_ADAPTER_PORT='https' is not a port"),
        ({"POD_NAMESPACE": "system", "PDC_METRICS_PORT": "70000"}, "PDC_METRICS_PORT='70000' is not a port"),
    ],
)
def test_a_wrong_environment_is_named(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(OperatorError, match=problem):
        from_environment(environment)
