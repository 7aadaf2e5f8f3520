"""A podTemplate that cannot be merged is refused with its place, before anybody tries."""

from typing import Any

import pytest
from cel_table import edited

from pdcluster_operator.crd.merge_keys import mergeable
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.kubernetes_pod import Release, templates
from pdcluster_operator.errors import SpecError


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"containers": "main"}, "containers must be a list"),
        ({"volumes": None}, "volumes must be a list"),
        ({"containers": ["main"]}, "containers[0] must be a mapping with the field name"),
        ({"containers": [{"image": "a"}]}, "containers[0] must be a mapping with the field name"),
        ({"containers": [{"name": ["a"]}]}, "containers[0] must be a mapping with the field name"),
        ({"containers": [{"name": "main", "env": {}}]}, "containers[0].env must be a list"),
        ({"hostAliases": [{"ip": "::1"}, {}]}, "hostAliases[1] must be a mapping with the field ip"),
    ],
)
def test_what_cannot_be_merged_is_named(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse(edited({"decode.podTemplate": {"spec": spec}}))
    assert str(refused.value) == f"spec.decode.podTemplate.spec: {problem}"


@pytest.mark.parametrize("spec", [{}, {"containers": []}, {"nodeName": 5}, {"affinity": [1]}, {"securityContext": "x"}])
def test_all_else_is_for_the_api_server_to_judge(spec: dict[str, Any]) -> None:
    assert mergeable(spec) == spec
    templates(parse(edited({"decode.podTemplate": {"spec": spec}})), Release("image"))
