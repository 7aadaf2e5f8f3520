"""Writes the chart's README from its values and their schema: `chart_readme.py [FOLDER OF THE CHART]`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "charts" / "pdcluster"
HEAD = """# {name}

{description}. Made by `make chart`: edit `values.yaml`, `values.schema.json` or `scripts/chart_readme.py`.

```
helm install pdcluster charts/pdcluster --namespace pdcluster-system --create-namespace
helm test pdcluster --namespace pdcluster-system
```

`helm test` runs `pdc preflight` in a pod: the definitions are of this version, and the operator is at work. An upgrade
moves the definitions and restarts no pod of a PDCluster. Uninstalling leaves the definitions and your objects, unless
`crds.keep` is false.

| value | default | |
|---|---|---|
"""


def readme(chart: Path) -> str:
    """The whole text. Raises KeyError for a value without a default or a description."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    rows = [f"| `{path}` | `{json.dumps(default)}` | {text} |" for path, default, text in entries(schema, values)]
    return HEAD.format(**about) + "\n".join(rows) + "\n"


def entries(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every value that has no named parts: its path, its default and what it is."""
    for name, part in schema["properties"].items():
        if "properties" in part:
            yield from entries(part, values[name], f"{path}{name}.")
        elif name != "global":
            yield f"{path}{name}", values[name], part["description"]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else CHART
    (folder / "README.md").write_text(readme(folder))
