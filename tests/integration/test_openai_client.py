"""The official client against the router: sync, async, streaming."""

import asyncio

import openai
import pytest
from router_fake_worker import expected_tokens
from router_harness import RouterHarness

from pdcluster_worker.core.effects import FailedNote
from pdcluster_worker.core.wire import FailureCode, Role

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module")
def harness():
    with RouterHarness(Role.PREFILL, Role.DECODE) as running:
        yield running
        running.wait(lambda: not running.leaks())


@pytest.fixture
def client(harness):
    with openai.OpenAI(base_url=f"{harness.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "pdcluster"


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=MESSAGES, max_completion_tokens=6, seed=1)
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert len(choice.message.content) == 6
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_streamed_chat_equals_the_whole_one(client: openai.OpenAI) -> None:
    fields = {"model": "fake", "messages": MESSAGES, "max_tokens": 9, "seed": 3}
    whole = client.chat.completions.create(**fields).choices[0].message.content
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 9
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_helper() -> None:
    end_token = 2
    with RouterHarness(Role.MIXED) as harness, openai.OpenAI(base_url=f"{harness.url}/v1", api_key="any") as client:
        harness.script.choose = lambda request, tokens: end_token if len(tokens) == request.prompt_length + 5 else None
        with client.chat.completions.stream(model="fake", messages=MESSAGES, seed=3) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content == "".join(deltas)
    assert len("".join(deltas)) == 5


def test_chat_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="fake", messages=MESSAGES, max_tokens=3, logprobs=True, top_logprobs=2, seed=5
    )
    choice = answer.choices[0]
    content = choice.logprobs.content
    assert [entry.token for entry in content] == list(choice.message.content)
    assert [bytes(entry.bytes).decode() for entry in content] == list(choice.message.content)
    assert all(len(entry.top_logprobs) == 2 and entry.top_logprobs[0].token == entry.token for entry in content)


def test_chat_logprobs_without_alternatives(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=2, logprobs=True)
    assert [entry.top_logprobs for entry in answer.choices[0].logprobs.content] == [[], []]


def test_streamed_logprobs(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="fake", messages=MESSAGES, max_tokens=3, logprobs=True, top_logprobs=1, stream=True
    )
    entries = [chunk.choices[0].logprobs for chunk in stream if chunk.choices]
    assert [len(entry.content) for entry in entries if entry is not None] == [1, 1, 1]


def test_completion_logprobs(client: openai.OpenAI) -> None:
    choice = client.completions.create(model="fake", prompt="abc", max_tokens=4, logprobs=2, seed=5).choices[0]
    logprobs = choice.logprobs
    assert logprobs.tokens == list(choice.text)
    assert logprobs.text_offset == [0, 1, 2, 3]
    assert logprobs.token_logprobs == [-0.5] * 4
    assert [len(top) for top in logprobs.top_logprobs] == [2] * 4


@pytest.mark.parametrize(
    "prompt",
    ["abc", ["abc", "xyz"], [71, 72, 73], [[71, 72, 73], [80, 81]]],
    ids=["text", "texts", "ids", "lists of ids"],
)
def test_prompt_forms(client: openai.OpenAI, prompt: object) -> None:
    answer = client.completions.create(model="fake", prompt=prompt, max_tokens=3, seed=9, n=2)
    prompts = 2 if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    assert [choice.index for choice in answer.choices] == list(range(2 * prompts))
    assert answer.usage.completion_tokens == 6 * prompts
    again = client.completions.create(model="fake", prompt=prompt, max_tokens=3, seed=9, n=2)
    assert [choice.text for choice in again.choices] == [choice.text for choice in answer.choices]
    assert answer.choices[0].text != answer.choices[1].text


def test_max_tokens_defaults_to_sixteen_for_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model="fake", prompt="abc").usage.completion_tokens == 16


def test_streamed_choices_are_told_apart(client: openai.OpenAI) -> None:
    fields = {"model": "fake", "prompt": ["abc", "xyz"], "max_tokens": 6, "seed": 8, "n": 2}
    whole = [choice.text for choice in client.completions.create(**fields).choices]
    streamed = [""] * 4
    for chunk in client.completions.create(**fields, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == whole


def test_echo(client: openai.OpenAI) -> None:
    fields = {"model": "fake", "prompt": "abc", "max_tokens": 2, "seed": 1}
    plain = client.completions.create(**fields).choices[0].text
    assert client.completions.create(**fields, echo=True).choices[0].text == "abc" + plain
    streamed = client.completions.create(**fields, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "abc" + plain


def test_token_ids_in_every_chunk(client: openai.OpenAI, harness: RouterHarness) -> None:
    stream = client.completions.create(
        model="fake", prompt=[71, 72], max_tokens=5, seed=4, stream=True, extra_body={"return_token_ids": True}
    )
    choices = [chunk.choices[0].model_dump() for chunk in stream]
    assert choices[0]["prompt_token_ids"] == [71, 72]
    assert all("token_ids" in choice for choice in choices)
    seed = harness.named(Role.PREFILL)[0].submitted[-1].sampling.seed
    assert [token for choice in choices for token in choice["token_ids"]] == expected_tokens([71, 72], seed, 5)
    assert max(len(choice["token_ids"]) for choice in choices) == 1


def test_ignored_fields(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="fake", messages=MESSAGES, max_tokens=1, user="u", metadata={"a": "b"}, store=False, service_tier="auto"
    )


def test_parts_of_text(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "something."}]
    one = client.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=4, seed=2)
    two = client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": parts}], max_tokens=4, seed=2
    )
    assert one.choices[0].message.content == two.choices[0].message.content


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="other", prompt="abc")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model="fake", prompt="abc", temperature=7)
    assert bad.value.param == "temperature"


def test_an_error_in_mid_stream_reaches_the_client() -> None:
    note = FailedNote(0, FailureCode.INTERNAL, "broken")
    with RouterHarness(Role.MIXED) as harness, openai.OpenAI(base_url=f"{harness.url}/v1", api_key="any") as client:
        harness.script.fail_after = lambda request: (3, note)
        stream = client.completions.create(model="fake", prompt="abc", max_tokens=9, stream=True)
        seen = [next(stream) for _ in range(3)]
        assert all(chunk.choices[0].text for chunk in seen)
        with pytest.raises(openai.APIError, match="broken"):
            next(stream)
        harness.wait(lambda: not harness.leaks())


def test_async_clients_at_once(harness: RouterHarness) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model="fake", messages=MESSAGES, max_tokens=8, seed=number, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{harness.url}/v1", api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    answers = asyncio.run(all_of_them())
    assert len(set(answers)) > 16
    assert {len(answer) for answer in answers} == {8}
