"""Text becomes one document or a clear error."""

import pytest

from pdcluster_operator.crd.load import load_document
from pdcluster_operator.errors import SpecError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "exactly one document is expected, found 0"),
        ("a: 1\n---\nb: 2\n", "exactly one document is expected, found 2"),
        ("a: 1\na: 2\n", "duplicate key 'a' at line 2, column 1"),
        ('{"a": {"b": 1, "b": 2}}', "duplicate key 'b'"),
        ("- 1\n", "a mapping is expected, not list"),
        ("just words", "a mapping is expected, not str"),
        ("a: b: c", "not valid YAML or JSON: .* at line 1"),
        ("a: [1, 2", "not valid YAML or JSON"),
        ("a: !!python/object:os.system x", "not valid YAML or JSON"),
        ("1: x", "key 1 is not a string"),
        ("a: .nan", "a value that JSON cannot hold"),
        ("a: \x01", "not valid YAML or JSON"),
        ("a: &x [*x]", "a value that JSON cannot hold"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(SpecError, match=message):
        load_document(text)


def test_time_stamps_stay_text():
    assert load_document("a: 2026-01-01\nb: 2026-01-01T00:00:00Z") == {"a": "2026-01-01", "b": "2026-01-01T00:00:00Z"}


def test_empty_documents_do_not_count():
    assert load_document("---\n# nothing\n---\na: 1\n---\n") == {"a": 1}


def test_anchors_and_merges_work():
    assert load_document("a: &a {x: 1}\nb: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
