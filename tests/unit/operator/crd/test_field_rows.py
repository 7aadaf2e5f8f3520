"""The table of fields has every field of the typed model, and each row changes the field that it is about."""

import copy

import pytest
from cel_table import Manifest, edited
from field_rows import BASE, ELSEWHERE, RDMA, Row, rows
from spec_fields import fields

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.errors import SpecError


def spec_of(row: Row, edit: Manifest) -> Manifest:
    return edited(copy.deepcopy({**(BASE if row.name == "demo" else RDMA), **edit}))


def at(manifest: Manifest, path: str) -> object:
    node = manifest["spec"]
    for step in path.split("."):
        node = node.get(step) if isinstance(node, dict) else None
    return node


def test_every_field_has_a_row() -> None:
    told = [row.field for row in rows()]
    assert sorted(fields()) == sorted([*told, *ELSEWHERE])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.field)
def test_a_row_changes_its_field_and_the_typed_model_has_the_same_verdict(row: Row) -> None:
    before, after = spec_of(row, row.first), spec_of(row, row.edit)
    assert at(after, row.field) is not None
    assert at(after, row.field) != at(before, row.field)
    old = parse(before).spec
    if not row.is_refused:
        assert list(parse(after).spec.refused_changes(old)) == []
        return
    try:
        words = [f"spec.{path}: {message}" for path, message in parse(after).spec.refused_changes(old)]
    except SpecError as error:
        words = [str(error)]
    assert row.text in "\n".join(words)
