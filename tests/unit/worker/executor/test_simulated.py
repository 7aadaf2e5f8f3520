"""The simulated runner: bytes that tell what they stand for, the same tokens everywhere, time by the profile."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pdcluster_worker.config import EngineConfig, ExecutorConfig, KVProtocol, RunnerKind
from pdcluster_worker.core.plan import Admission, StepPlan
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.errors import ConfigError, StateError
from pdcluster_worker.executor.factory import make_runner
from pdcluster_worker.executor.profile import DecodeTiming, PrefillTiming, Profile, load_profile, load_shape
from pdcluster_worker.executor.simulated_kv import SimulatedKV
from pdcluster_worker.executor.simulated_runner import SimulatedRunner, step_seconds
from pdcluster_worker.executor.slots import SlotTable
from pdcluster_worker.kv.layout import KVLayout


def config(tmp_path: Path, profile: str = "{}", **engine: object) -> ExecutorConfig:
    (tmp_path / "profile.json").write_text(profile)
    settings = {"block_size": 16, "kv_blocks": 40, "max_model_length": 512} | engine
    return ExecutorConfig(
        model_path=tmp_path,
        model_name="m",
        engine=EngineConfig(runner=RunnerKind.SIMULATED, profile=tmp_path / "profile.json", **settings),  # type: ignore[arg-type]
        kv_protocol=KVProtocol.IPC,
        gpu_count=0,
        rank=0,
        world_size=1,
        plan_socket="",
        report_socket="",
        instance_id="i",
    )


def runner(tmp_path: Path, profile: str = '{"verification": "full"}', **engine: object) -> SimulatedRunner:
    return SimulatedRunner(config(tmp_path, profile, **engine), lambda fraction: None)


def admit(slot: int, tokens: list[int], prompt_length: int, params: SamplingParams) -> Admission:
    blocks = tuple(range(8 * slot, 8 * slot + 8))
    return Admission(slot, bytes(16), 1, np.array(tokens, dtype="<u4").tobytes(), prompt_length, params, blocks)


def step(slot: int, start: int, count: int, sample: bool, *admissions: Admission) -> StepPlan:
    return StepPlan(0, admissions=admissions, slots=(slot,), starts=(start,), counts=(count,), samples=(sample,))


def table_of(simulated: SimulatedRunner) -> SlotTable:
    return SlotTable(simulated.layout, simulated.max_model_length, simulated.vocab_size)


def generate(
    simulated: SimulatedRunner, tokens: list[int], prompt: int, count: int, params: SamplingParams
) -> list[int]:
    """Prefill in two chunks, then decode, on a table of its own."""
    table, length, half = table_of(simulated), len(tokens), len(tokens) // 2
    plans = [
        step(1, 0, half, False, admit(1, tokens, prompt, params)),
        step(1, half, length - half, True),
        *(step(1, length + index, 1, True) for index in range(count - 1)),
    ]
    output: list[int] = []
    for plan in plans:
        table.apply(plan)
        sampled = simulated.execute(table.batch(plan), lambda layer: None)
        table.commit(plan, sampled.tokens)
        output += sampled.tokens
    return output


def test_a_continuation_elsewhere_says_the_same(tmp_path: Path) -> None:
    prompt, params = list(range(20)), SamplingParams(seed=3)
    whole = generate(runner(tmp_path), prompt, 20, 10, params)
    rest = generate(runner(tmp_path, block_size=8, kv_blocks=80), prompt + whole[:4], 20, 6, params)
    assert whole[4:] == rest
    assert len(set(whole)) > 5


def test_tokens_depend_on_seed_and_prompt(tmp_path: Path) -> None:
    simulated, prompt = runner(tmp_path), list(range(20))
    base = generate(simulated, prompt, 20, 4, SamplingParams(seed=3))
    assert generate(simulated, prompt, 20, 4, SamplingParams(seed=4)) != base
    assert generate(simulated, [9, *prompt[1:]], 20, 4, SamplingParams(seed=3)) != base


def test_the_end_comes_by_its_probability_unless_it_may_not(tmp_path: Path) -> None:
    always = runner(tmp_path, '{"eos_token_id": 7, "eos_probability": 1.0}')
    assert generate(always, [1, 2], 2, 3, SamplingParams(min_tokens=2))[2] == 7
    assert 7 not in generate(always, [1, 2], 2, 3, SamplingParams(min_tokens=2))[:2]
    assert 7 not in generate(always, [1, 2], 2, 5, SamplingParams(ignore_eos=True))
    never = runner(tmp_path, '{"eos_token_id": 1, "vocab_size": 3}')
    assert 1 not in generate(never, [0, 2], 2, 30, SamplingParams())


def test_logprobs_come_for_those_that_ask(tmp_path: Path) -> None:
    simulated = runner(tmp_path)
    table = table_of(simulated)
    asks = [SamplingParams(logprobs=3), SamplingParams(), SamplingParams(logprobs=0)]
    plan = StepPlan(
        1,
        admissions=tuple(admit(slot, [1], 1, params) for slot, params in enumerate(asks)),
        slots=(0, 1, 2),
        starts=(0, 0, 0),
        counts=(1, 1, 1),
        samples=(True, True, True),
    )
    table.apply(plan)
    sampled = simulated.execute(table.batch(plan), lambda layer: None)
    assert set(sampled.logprobs) == {0, 2}
    assert sampled.logprobs[0].top_tokens[0] == sampled.tokens[0]
    assert len(sampled.logprobs[0].top_tokens) == 3
    assert sampled.logprobs[2].top_tokens == ()


def test_every_layer_is_announced_once_in_order_behind_its_bytes(tmp_path: Path) -> None:
    simulated = runner(tmp_path)
    table = table_of(simulated)
    plan = step(0, 0, 2, True, admit(0, [5, 6], 2, SamplingParams()))
    table.apply(plan)
    layers: list[int] = []
    simulated.execute(table.batch(plan), layers.append)
    assert layers == list(range(simulated.layout.layers))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pattern_tells_token_position_layer_and_half(dtype: str) -> None:
    layout = KVLayout("m", dtype, layers=2, num_blocks=4, kv_heads=2, block_size=4, head_dim=8)
    kv = SimulatedKV(layout)
    tokens, positions, blocks = (np.array(part, dtype=np.int32) for part in ([5, 6, 7], [2, 3, 4], [1, 1, 3]))
    assert not kv.matches(0, tokens, positions, blocks).any()
    kv.write(0, tokens, positions, blocks)
    assert kv.matches(0, tokens, positions, blocks).all()
    assert not kv.matches(1, tokens, positions, blocks).any()
    assert not kv.matches(0, tokens + 1, positions, blocks).any()
    assert not kv.matches(0, tokens, positions + 4, blocks).any()
    both = kv.pattern(0, tokens, positions)
    assert len(np.unique(both)) == both.size


def test_foreign_kv_is_noticed(tmp_path: Path) -> None:
    simulated = runner(tmp_path, "{}")
    table = table_of(simulated)
    plan = step(0, 2, 1, True, admit(0, [1, 2, 3], 2, SamplingParams()))
    table.apply(plan)
    with pytest.raises(StateError, match="position 0"):
        simulated.execute(table.batch(plan), lambda layer: None)


def test_time_is_a_function_of_the_batch(tmp_path: Path) -> None:
    simulated = runner(tmp_path)
    table = table_of(simulated)
    plan = StepPlan(
        1,
        admissions=(admit(0, list(range(30)), 30, SamplingParams()), admit(1, list(range(11)), 5, SamplingParams())),
        slots=(0, 1),
        starts=(10, 10),
        counts=(20, 1),
        samples=(True, True),
    )
    table.apply(plan)
    batch = table.batch(plan)
    assert step_seconds(Profile(), batch) == 0.0
    prefill = Profile(
        prefill=PrefillTiming(base=1.0, per_token=0.1, per_token_context=0.01), prefill_tokens_per_second=10
    )
    assert step_seconds(prefill, batch) == pytest.approx(1.0 + 20 * 0.2 + 20 * 20 * 0.01)
    decode = Profile(decode=DecodeTiming(base=2.0, per_request=0.5, per_context_token=0.1))
    assert step_seconds(decode, batch) == pytest.approx(2.0 + 0.5 + 11 * 0.1)


def test_a_step_begins_where_the_last_one_ended_or_when_its_plan_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []
    monkeypatch.setattr(SimulatedRunner, "_wait_until", lambda self, deadline: ends.append(deadline))
    simulated = runner(tmp_path, '{"decode": {"base": 1.0}, "verification": "off"}')
    table = table_of(simulated)
    table.apply(step(0, 0, 1, False, admit(0, [5, 6], 2, SamplingParams())))
    for position, arrived in enumerate((100.0, 100.2, 110.0), start=1):
        plan = step(0, position, 1, True)
        sampled = simulated.execute(table.batch(plan, arrived=arrived), lambda layer: None)
        table.commit(plan, sampled.tokens)
    assert ends == [101.0, 102.0, 111.0]


def test_the_shape_comes_from_the_profile_then_the_model_then_defaults(tmp_path: Path) -> None:
    plain = runner(tmp_path)
    assert (plain.layout.layers, plain.layout.kv_heads, plain.layout.head_dim, plain.vocab_size) == (4, 2, 64, 32000)
    model = {"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 256}
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(model | {"vocab_size": 99, "architectures": ["X"]}))
    assert load_shape(tmp_path).vocab_size == 99
    with_model = runner(tmp_path, '{"layers": 3}')
    assert (with_model.layout.layers, with_model.layout.kv_heads, with_model.layout.head_dim) == (3, 4, 32)
    assert with_model.vocab_size == 99


@pytest.mark.parametrize(
    ("profile", "engine", "words"),
    [
        ('{"layer": 3}', {}, "layer"),
        ('{"prefill": {"base": -1}}', {}, r"\$\.prefill\.base"),
        ("nonsense", {}, "profile.json"),
        ("{}", {"kv_blocks": 31}, "one request of 512 tokens needs 32"),
        ("{}", {"max_model_length": 5000}, "exceeds the model's 4096"),
        ("{}", {"dtype": "int4"}, "int4"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, profile: str, engine: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        runner(tmp_path, profile, **engine)


def test_a_missing_profile_is_an_error_and_none_is_the_default(tmp_path: Path) -> None:
    assert load_profile(None) == Profile()
    with pytest.raises(ConfigError, match="absent"):
        load_profile(tmp_path / "absent.json")


def test_the_factory_reports_progress(tmp_path: Path) -> None:
    fractions: list[float] = []
    made = make_runner(config(tmp_path), fractions.append)
    assert isinstance(made, SimulatedRunner)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
