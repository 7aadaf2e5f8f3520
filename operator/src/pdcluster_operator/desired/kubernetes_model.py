"""Where a pod finds its model's files: a volume, its mount, and the container that fills it where one must. Pure."""

from pathlib import PurePosixPath
from typing import Any

from pdcluster_operator.crd.model import HuggingFace, ModelSource
from pdcluster_operator.plan.site import MODEL_FOLDER

Manifest = dict[str, Any]

VOLUME = "model"


def model_path(source: ModelSource) -> str:
    """The path that a pod is told: a folder, or one file whose ending says what it is."""
    given = (source.host_path and source.host_path.path) or (source.pvc and source.pvc.sub_path) or ""
    return f"{MODEL_FOLDER}/{PurePosixPath(given).name}" if given.endswith(".gguf") else MODEL_FOLDER


def model_volume(source: ModelSource, image: str, *, weights: bool) -> tuple[Manifest, Manifest, Manifest | None]:
    """The volume, its mount in the main container, and an init container when the files must be fetched first.

    Without `weights` only what a router reads is fetched.
    """
    mount: Manifest = {"name": VOLUME, "mountPath": model_path(source), "readOnly": True}
    if source.host_path:
        return {"name": VOLUME, "hostPath": {"path": source.host_path.path}}, mount, None
    if source.pvc:
        if source.pvc.sub_path:
            mount["subPath"] = source.pvc.sub_path
        claim = {"claimName": source.pvc.claim_name, "readOnly": True}
        return {"name": VOLUME, "persistentVolumeClaim": claim}, mount, None
    if source.image:
        reference = {"reference": source.image.reference, "pullPolicy": source.image.pull_policy.value}
        return {"name": VOLUME, "image": reference}, mount, None
    assert source.hugging_face is not None, "the schema asks for exactly one source"
    return {"name": VOLUME, "emptyDir": {}}, mount, _fetch(source.hugging_face, image, weights=weights)


def _fetch(source: HuggingFace, image: str, *, weights: bool) -> Manifest:
    """The worker's own program: one commit, resumed after a restart, checked against the hub's sums."""
    command = ["python", "-m", "pdcluster_worker", "fetch", "--repo", source.repo, "--revision", source.revision]
    command += ["--to", MODEL_FOLDER, *([] if weights else ["--no-weights"])]
    container: Manifest = {
        "name": "fetch-model",
        "image": image,
        "command": command,
        "env": [{"name": "HF_HOME", "value": "/tmp/hf"}],
        "volumeMounts": [{"name": VOLUME, "mountPath": MODEL_FOLDER}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    if source.token_secret:
        secret = {"secretKeyRef": {"name": source.token_secret, "key": "token"}}
        container["env"].append({"name": "HF_TOKEN", "valueFrom": secret})
    return container
