"""Each rule of the schema, accepted and refused by a real API server; the typed model of `pdc run` agrees."""

from typing import Any

import pytest
from cel_table import CHANGES, NAMES, ROWS, VALID, edited
from cluster_client import ApiError, Client

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.crd.schema import definitions
from pdcluster_operator.errors import SpecError

pytestmark = pytest.mark.anyio

ROW = pytest.mark.parametrize(("edit", "problem"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
CHANGE = pytest.mark.parametrize(("edit", "problem"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])


@ROW
async def test_the_api_server_gives_its_verdict(admin: Client, edit: dict[str, Any], problem: str | None) -> None:
    if problem is None:
        await admin.create(edited(edit), dry_run=True)
        return
    with pytest.raises(ApiError) as refused:
        await admin.create(edited(edit), dry_run=True)
    assert (refused.value.status, refused.value.reason) == (422, "Invalid")
    assert problem in refused.value.message


@ROW
def test_the_typed_model_agrees(edit: dict[str, Any], problem: str | None) -> None:
    if problem is None:
        parse(edited(edit))
        return
    with pytest.raises(SpecError) as refused:
        parse(edited(edit))
    assert problem in str(refused.value)


@pytest.mark.parametrize(("name", "accepted"), NAMES)
async def test_names(admin: Client, name: str, accepted: bool) -> None:
    manifest = {**VALID, "metadata": {"name": name}}
    verdicts = [await is_accepted(admin, manifest), is_valid(manifest)]
    assert verdicts == [accepted, accepted]


async def is_accepted(admin: Client, manifest: dict[str, Any]) -> bool:
    try:
        await admin.create(manifest, dry_run=True)
    except ApiError as refused:
        if refused.status == 422:
            return False
        raise
    return True


def is_valid(manifest: dict[str, Any]) -> bool:
    try:
        parse(manifest)
    except SpecError:
        return False
    return True


@CHANGE
async def test_changes(admin: Client, edit: dict[str, Any], problem: str | None) -> None:
    found = await admin.create(VALID)
    try:
        changed = {**edited(edit), "metadata": found["metadata"]}
        if problem is None:
            await admin.replace(changed)
        else:
            with pytest.raises(ApiError, match=problem):
                await admin.replace(changed)
    finally:
        await admin.delete("pdcluster.dev/v1alpha1/PDCluster", "valid")
    verdict = list(parse(edited(edit)).spec.refused_changes(parse(VALID).spec))
    assert [message for _, message in verdict if problem and problem in message] or problem is None


async def test_defaults_are_filled_in_at_every_level(admin: Client) -> None:
    found = await admin.create(VALID, dry_run=True)

    typed = parse({key: value for key, value in found.items() if key != "metadata"} | {"metadata": {"name": "valid"}})
    assert typed.spec == parse(VALID).spec
    assert found["spec"]["engine"]["prepareThreads"] == 5
    assert "engine" not in found["spec"]["prefill"], "a role's engine must stay absent for spec.engine to show through"
    assert found["spec"]["router"]["replicas"] == 1
    assert found["spec"]["prefill"]["scaling"] == {"mode": "Static", "minReplicas": 1}


async def test_unknown_fields_are_refused_when_asked_to(admin: Client) -> None:
    path = admin.path("pdcluster.dev/v1alpha1/PDCluster")
    with pytest.raises(ApiError, match="unknown field"):
        await admin.call("POST", path, {"fieldValidation": "Strict", "dryRun": "All"}, edited({"prefil": {}}))


def test_every_rule_has_a_row_that_breaks_it() -> None:
    messages = {message for definition in definitions().values() for message in rule_messages(definition)}
    problems = [row[2] for row in (*ROWS, *CHANGES) if row[2]]
    elsewhere = {"metadata.name must be"}
    uncovered = {
        message
        for message in messages
        if not any(problem in message for problem in problems) and not any(word in message for word in elsewhere)
    }
    assert not uncovered


def rule_messages(node: Any) -> list[str]:
    if isinstance(node, list):
        return [message for entry in node for message in rule_messages(entry)]
    if not isinstance(node, dict):
        return []
    own = [entry["message"] for entry in node.get("x-kubernetes-validations", [])]
    return own + [message for value in node.values() for message in rule_messages(value)]
