"""Writes the CustomResourceDefinitions and their reference page: `python -m pdcluster_operator.crd.generate FOLDER`."""

import sys
from pathlib import Path

import yaml

from pdcluster_operator.crd.reference import reference
from pdcluster_operator.crd.schema import Schema, definitions

HEADER = "# Made from the typed model by `make crds`; not edited by hand.\n"


class _Dumper(yaml.SafeDumper):
    """Without anchors: the API server's tools read them, people do not."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def as_yaml(manifest: Schema) -> str:
    return HEADER + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)


def generated() -> dict[str, str]:
    """Contents by path, relative to the root of the repository."""
    found = definitions()
    cluster = next(entry for entry in found.values() if entry["spec"]["names"]["kind"] == "PDCluster")
    folders = ("manifests/crd", "charts/pdcluster/definitions")
    files = {f"{folder}/{name}": as_yaml(found[name]) for name in found for folder in folders}
    return files | {"docs/manifest.md": reference(cluster)}


def main(root: Path) -> None:
    for name, text in generated().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
