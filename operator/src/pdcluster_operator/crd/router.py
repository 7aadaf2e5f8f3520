"""`router`: the pods that speak the OpenAI API."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel
from pdcluster_operator.crd.role import EnvironmentVariable, PodTemplate, Resources
from pdcluster_operator.crd.values import MapKey, ObjectName, Seconds, Text


class Policy(StrEnum):
    """How a prefill worker is chosen."""

    PREFIX_AWARE = "PrefixAware"
    LEAST_TOKENS = "LeastTokens"
    ROUND_ROBIN = "RoundRobin"


class SecretKey(SpecModel):
    name: Annotated[ObjectName, Field(description="a Secret of the namespace")]
    key: Annotated[MapKey, Field(min_length=1, description="its key")] = "api-keys"


class Router(SpecModel):
    replicas: Annotated[int, Field(ge=1, le=64, description="pods; local mode starts one")] = 1
    image: Annotated[Text | None, Field(description="absent: the one of the operator's release")] = None
    policy: Annotated[
        Policy, Field(description="PrefixAware: where the prompt's beginning is known, unless that worker is behind")
    ] = Policy.PREFIX_AWARE
    min_disagg_tokens: Annotated[
        int, Field(ge=0, le=1 << 24, description="shorter prompts go to mixed workers, if there are any")
    ] = 0
    max_queue: Annotated[int, Field(ge=1, le=1 << 20, description="waiting requests; more are refused with 429")] = 1024
    queue_timeout_seconds: Annotated[Seconds, Field(description="longest wait for a worker; then 503")] = 120
    request_timeout_seconds: Annotated[Seconds, Field(description="deadline of a request")] = 600
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30, description="larger requests are refused with 413")] = (
        16 << 20
    )
    api_key_secret_ref: Annotated[
        SecretKey | None, Field(description="keys that clients must show, one a line; absent: nobody is asked")
    ] = None
    resources: Resources | None = None
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=64)] = ()
    pod_template: PodTemplate | None = None
