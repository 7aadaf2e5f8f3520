"""`engine`: settings of a worker process. `spec.engine` holds for all roles, a role's `engine` wins where it speaks.

The names, kebab-cased, are the worker's flags, apart from the image's.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel
from pdcluster_operator.crd.values import ObjectName, Path, Text


class DataType(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Runner(StrEnum):
    PADDLE = "Paddle"
    SIMULATED = "Simulated"


class PullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class PullSecret(SpecModel):
    name: Annotated[ObjectName, Field(description="a Secret of type kubernetes.io/dockerconfigjson")]


Image = Annotated[Text, Field(description="the worker image; absent: the one of the operator's release")]
PullSecrets = Annotated[tuple[PullSecret, ...], Field(max_length=8, description="secrets to pull the image with")]
PrepareThreads = Annotated[
    int, Field(ge=1, le=256, description="threads that prepare requests before they are scheduled")
]
BlockSize = Annotated[int, Field(ge=1, le=1024, description="tokens in one block of the KV cache")]
KVBlocks = Annotated[int, Field(ge=1, le=1 << 24, description="blocks in the KV cache; absent: by memoryUtilization")]
MaxModelLength = Annotated[
    int, Field(ge=2, le=1 << 24, description="tokens of prompt and answer; absent: the model's limit")
]
MaxBatchTokens = Annotated[
    int, Field(ge=1, le=1 << 20, description="tokens computed in one step: the budget of chunked prefill")
]
MaxRunningRequests = Annotated[int, Field(ge=1, le=1 << 16, description="requests in one step")]
MemoryUtilization = Annotated[float, Field(ge=0.05, le=1, description="share of GPU memory that the worker may use")]
ProfilePath = Annotated[
    Path, Field(description="timing profile of the simulated runner; local mode: relative to the manifest")
]
PrefixCaching = Annotated[bool, Field(description="keep the KV of finished prompts for later ones that begin alike")]
Dtype = Annotated[DataType, Field(description="of weights and KV cache; auto: bfloat16 on a GPU, float32 on a CPU")]
RunnerChoice = Annotated[
    Runner, Field(description="Paddle computes; Simulated keeps a timing profile and makes up tokens")
]
ImagePolicy = Annotated[PullPolicy, Field(description="when the node pulls the image")]


class EngineOverrides(SpecModel):
    """A role's own settings. No field has a default, so that `spec.engine` shows through."""

    image: Image | None = None
    pull_policy: ImagePolicy | None = None
    pull_secrets: PullSecrets | None = None
    prepare_threads: PrepareThreads | None = None
    block_size: BlockSize | None = None
    kv_blocks: KVBlocks | None = None
    max_model_length: MaxModelLength | None = None
    max_batch_tokens: MaxBatchTokens | None = None
    max_running_requests: MaxRunningRequests | None = None
    prefix_caching: PrefixCaching | None = None
    dtype: Dtype | None = None
    runner: RunnerChoice | None = None
    profile: ProfilePath | None = None
    memory_utilization: MemoryUtilization | None = None


class Engine(SpecModel):
    """Settings of all roles, where a role has no other."""

    image: Image | None = None
    pull_policy: ImagePolicy = PullPolicy.IF_NOT_PRESENT
    pull_secrets: PullSecrets = ()
    prepare_threads: PrepareThreads = 5
    block_size: BlockSize = 64
    kv_blocks: KVBlocks | None = None
    max_model_length: MaxModelLength | None = None
    max_batch_tokens: MaxBatchTokens = 2048
    max_running_requests: MaxRunningRequests = 256
    prefix_caching: PrefixCaching = True
    dtype: Dtype = DataType.AUTO
    runner: RunnerChoice = Runner.PADDLE
    profile: ProfilePath | None = None
    memory_utilization: MemoryUtilization = 0.9

    def overridden(self, role: EngineOverrides | None) -> "Engine":
        """What holds for a role: its own settings, and these where it has none."""
        own = {} if role is None else {name: getattr(role, name) for name in role.model_fields_set}
        return self.model_copy(update={name: value for name, value in own.items() if value is not None})
