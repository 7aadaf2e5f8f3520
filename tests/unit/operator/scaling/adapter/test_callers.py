"""Who the front proxy is, by the ConfigMap of the API server."""

import pytest

from pdcluster_operator.scaling.adapter.callers import Callers, CallersError, callers_of, common_name

NAMED = {"data": {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": '["front-proxy-client"]'}}


def certificate(name: str) -> dict[str, object]:
    return {"subject": ((("organizationName", "x"),), (("commonName", name),))}


def test_the_config_map_names_authority_and_callers() -> None:
    assert callers_of(NAMED) == Callers("PEM", ("front-proxy-client",))


@pytest.mark.parametrize("found", [None, {}, {"data": {"client-ca-file": "PEM"}}])
def test_without_a_front_proxy_nobody_is_expected(found: dict[str, object] | None) -> None:
    with pytest.raises(CallersError, match="is aggregation set up"):
        callers_of(found)


def test_names_that_are_no_list_are_refused() -> None:
    with pytest.raises(CallersError, match="no JSON list"):
        callers_of({"data": {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": "front"}})


def test_only_allowed_names_may_ask() -> None:
    callers = callers_of(NAMED)
    assert callers.allow(certificate("front-proxy-client"))
    assert not callers.allow(certificate("somebody"))
    assert not callers.allow(None)
    assert not callers.allow({})


def test_no_names_mean_any_that_the_authority_has_signed() -> None:
    assert Callers("PEM", ()).allow(certificate("somebody"))


def test_the_last_common_name_counts() -> None:
    assert common_name(((("commonName", "first"),), (("commonName", "last"),))) == "last"
    assert common_name(()) == ""
