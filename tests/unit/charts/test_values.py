"""The chart's values say what they are, in one place, and its README is made from that."""

import json
from pathlib import Path
from typing import Any

import yaml
from chart_readme import entries, readme

CHART = Path(__file__).resolve().parents[3] / "charts" / "pdcluster"


def leaves(values: dict[str, Any], known: set[str], path: str = "") -> set[str]:
    """Every value's path; one that the schema knows as a whole is not looked into."""
    found: set[str] = set()
    for name, value in values.items():
        here = f"{path}{name}"
        is_group = isinstance(value, dict) and here not in known
        found |= leaves(value, known, f"{here}.") if is_group else {here}
    return found


def test_every_value_has_a_default_and_is_explained() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    told = {path: text for path, _, text in entries(schema, values)}

    assert told.keys() == leaves(values, set(told))
    assert all(text.endswith(".") for text in told.values())


def test_the_readme_is_made_from_them() -> None:
    assert (CHART / "README.md").read_text() == readme(CHART)
