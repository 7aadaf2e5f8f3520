"""Small manifests that several cluster tests build on."""

from typing import Any

Manifest = dict[str, Any]


def fake_node(name: str, gpus: int = 8) -> Manifest:
    """A node that KWOK keeps alive, with GPUs to hand out."""
    size = {"cpu": "64", "memory": "512Gi", "pods": "500", "nvidia.com/gpu": str(gpus), "rdma/hca": "8"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "fake"},
        },
        "status": {"capacity": size, "allocatable": size},
    }


def gpu_stateful_set(name: str, replicas: int, gpus: int = 1) -> Manifest:
    """Pods that each ask for GPUs; the image is never pulled, since no container ever runs."""
    labels = {"app": name}
    container = {
        "name": "worker",
        "image": "example.invalid/worker:test",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
