"""Options that all commands about clusters share."""

from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="of the PDCluster; without it, the context's", show_default=False),
]
Context = Annotated[str | None, typer.Option(help="of the kubeconfig; without it, the current one")]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        help="file of clusters and users; without it, $KUBECONFIG or ~/.kube/config, or in a pod its service account",
        show_default=False,
    ),
]
Format = Annotated[Output, typer.Option("-o", "--output", help="for people, or for programs")]
Name = Annotated[
    str | None, typer.Argument(help="of the PDCluster; not needed where there is only one", show_default=False)
]
ClusterName = Annotated[
    str | None,
    typer.Option("-c", "--cluster", help="name of the PDCluster; not needed where there is only one"),
]
