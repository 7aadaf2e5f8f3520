"""`model`: which model is served, and where its files come from."""

from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel, rule
from pdcluster_operator.crd.engine import PullPolicy
from pdcluster_operator.crd.values import ObjectName, Path, Text


class HostPath(SpecModel):
    path: Annotated[
        Path,
        Field(
            description="a checkpoint directory or one .gguf file, on the node; local mode: relative to the manifest"
        ),
    ]


class HuggingFace(SpecModel):
    repo: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$", max_length=256, description="owner/name")
    ]
    revision: Annotated[
        Text, Field(description="a commit; a branch or tag means, in each pod, its commit when that pod starts")
    ] = "main"
    token_secret: Annotated[ObjectName | None, Field(description="a Secret whose key `token` is an access token")] = (
        None
    )


class Volume(SpecModel):
    claim_name: Annotated[ObjectName, Field(description="a PersistentVolumeClaim of the namespace")]
    sub_path: Annotated[Path | None, Field(description="a folder or file in the volume")] = None


class ModelImage(SpecModel):
    reference: Annotated[Text, Field(description="an OCI image whose files are the checkpoint")]
    pull_policy: Annotated[PullPolicy, Field(description="when the node pulls the image")] = PullPolicy.IF_NOT_PRESENT


class ModelSource(SpecModel):
    """Exactly one."""

    host_path: HostPath | None = None
    hugging_face: HuggingFace | None = None
    pvc: Volume | None = None
    image: ModelImage | None = None

    @property
    def kind(self) -> str:
        """The name, as written in the manifest, of the one that is set."""
        chosen = next(name for name in type(self).model_fields if getattr(self, name) is not None)
        return type(self).model_fields[chosen].alias or chosen

    @rule(
        "[has(self.hostPath), has(self.huggingFace), has(self.pvc), has(self.image)].exists_one(x, x)",
        "exactly one of hostPath, huggingFace, pvc and image must be set",
    )
    def has_exactly_one(self) -> bool:
        return sum(getattr(self, name) is not None for name in type(self).model_fields) == 1


class Model(SpecModel):
    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$",
            max_length=63,
            description="the name that clients ask for",
        ),
    ]
    source: ModelSource
