"""Every sample is taken by a real API server, with strict field validation."""

from pathlib import Path

import pytest
import yaml
from cluster_client import ApiError, Client

pytestmark = pytest.mark.anyio

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))
OTHERS = {"keda.sh", "monitoring.coreos.com"}
"""Groups of kinds that come with other projects, which the test cluster does not have."""


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
async def test_a_sample_is_accepted(admin: Client, path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    for document in documents:
        if document["apiVersion"].partition("/")[0] in OTHERS:
            continue
        try:
            path_of_kind = admin.path(f"{document['apiVersion']}/{document['kind']}")
            await admin.call("POST", path_of_kind, {"dryRun": "All", "fieldValidation": "Strict"}, document)
        except ApiError as refused:
            pytest.fail(f"{path.name}: {refused.message}")
