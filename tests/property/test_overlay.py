"""Whatever a podTemplate holds: it is refused with its place, or pods come of it that belong to their cluster."""

from typing import Any

from cel_table import edited
from hypothesis import given
from hypothesis import strategies as st

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.merge_keys import MERGE_KEYS
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_pod import Release, templates
from pdcluster_operator.errors import SpecError

NAMES = st.sampled_from([*MERGE_KEYS, *MERGE_KEYS.values(), "main", "tls", "command", "resources", "tolerations"])
SCALARS = st.none() | st.booleans() | st.integers(-1, 9000) | NAMES
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=25
)


def verdict(manifest: dict[str, Any]) -> tuple[PDCluster | None, str]:
    try:
        return parse(manifest), ""
    except SpecError as error:
        return None, str(error)


@given(st.dictionaries(NAMES, ANYTHING, max_size=5), st.sampled_from(["decode", "router"]))
def test_a_pod_template_is_refused_or_laid_over(spec: dict[str, Any], role: str) -> None:
    cluster, problem = verdict(edited({f"{role}.podTemplate": {"spec": spec}}))
    if cluster is None:
        assert problem.startswith(f"spec.{role}.podTemplate.spec")
        return
    made = templates(cluster, Release("image"))[role]
    marks = made["metadata"]["labels"]
    assert (marks[labels.CLUSTER], marks[labels.ROLE]) == ("valid", role)
    main = next(entry for entry in made["spec"]["containers"] if entry["name"] == "main")
    assert main["command"][:3] == ["python", "-m", "pdcluster_worker"]
