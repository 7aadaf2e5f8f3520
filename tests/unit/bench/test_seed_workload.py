"""The seed benchmark's arithmetic: the profile is the roofline's, the bound is below any schedule."""

import json
from pathlib import Path

import pytest
from roofline import ERNIE_03B, H100, profile
from seed_workload import Sizes, bound_seconds, ideal_seconds, prompt_tokens, workload

from pdcluster_worker.executor.profile import DecodeTiming, PrefillTiming, Profile, load_profile

PROFILE_FILE = Path(__file__).parents[2] / "bench/profiles/h100-ernie45-0.3b.json"


def test_the_profile_file_is_what_the_arithmetic_says() -> None:
    assert json.loads(PROFILE_FILE.read_text()) == profile(H100, ERNIE_03B)


def test_the_simulated_runner_reads_the_profile() -> None:
    assert load_profile(PROFILE_FILE).layers == 18


def test_the_workload_has_the_means_and_is_always_the_same() -> None:
    sizes = workload(1000)
    assert sum(size.prompt for size in sizes) == 1_280_000
    assert sum(size.output for size in sizes) == 700_000
    assert sizes == workload(1000)


def test_prompts_differ_from_their_first_block_on() -> None:
    assert len(prompt_tokens(1, 64, 1000)) == 256
    assert prompt_tokens(1, 64, 1000) == prompt_tokens(1, 64, 1000)
    assert prompt_tokens(1, 64, 1000) != prompt_tokens(2, 64, 1000)


@pytest.mark.parametrize("slots", [4, 256])
def test_nothing_beats_the_bound(slots: int) -> None:
    profile = load_profile(PROFILE_FILE)
    sizes = workload(60, 0.1)
    bound = bound_seconds(profile, sizes, slots, 2048)
    assert 0 < bound <= ideal_seconds(profile, sizes, 256, slots, 2048)


def test_the_ideal_of_one_request_is_the_sum_of_its_steps() -> None:
    profile = Profile(prefill=PrefillTiming(base=1.0), decode=DecodeTiming(base=0.5))
    assert ideal_seconds(profile, [Sizes(10, 4)], 8, 8, 100) == pytest.approx(1.0 + 3 * 0.5)
    assert bound_seconds(profile, [Sizes(10, 4)], 8, 100) <= 2.5
