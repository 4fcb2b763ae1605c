# SPDX-License-Identifier: Apache-2.0
"""The official openai client against the real server."""
import json
import math

import pytest

openai = pytest.importorskip("openai", reason="PyPI's openai is not installed")

QUESTION = [{"role": "user", "content": "What is Millrace?"}]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["millrace-tiny"]
    assert client.models.retrieve("millrace-tiny").object == "model"


def test_chat_answers_with_usage(client):
    answer = client.chat.completions.create(model="millrace-tiny", messages=QUESTION, temperature=0, max_tokens=60)
    assert "Millrace" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_equals_the_whole_answer(client):
    arguments = dict(model="millrace-tiny", messages=QUESTION, temperature=0.8, seed=7, max_tokens=40)
    whole = client.chat.completions.create(**arguments)
    text, usage, reasons = "", None, []
    for chunk in client.chat.completions.create(**arguments, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text == whole.choices[0].message.content
    assert reasons == [whole.choices[0].finish_reason]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_logprobs_are_a_distribution(client):
    answer = client.chat.completions.create(model="millrace-tiny", messages=QUESTION, temperature=0, max_tokens=5,
                                            logprobs=True, top_logprobs=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == 5
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 4
        assert token.top_logprobs[0].token == token.token
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.0001


def test_n_choices_differ_and_repeat_by_seed(client):
    arguments = dict(model="millrace-tiny", messages=QUESTION, temperature=1.5, seed=11, n=4, max_tokens=30)
    first = [choice.message.content for choice in client.chat.completions.create(**arguments).choices]
    again = [choice.message.content for choice in client.chat.completions.create(**arguments).choices]
    assert first == again and len(first) == 4 and len(set(first)) > 1


def test_a_stop_string_ends_the_answer_before_it(client):
    whole = client.chat.completions.create(model="millrace-tiny", messages=QUESTION, temperature=0, max_tokens=60)
    text = whole.choices[0].message.content
    stop = text[8:12]
    cut = client.chat.completions.create(model="millrace-tiny", messages=QUESTION, temperature=0, max_tokens=60,
                                         stop=[stop])
    assert cut.choices[0].message.content == text[:text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_completions_echo_and_logprobs(client):
    answer = client.completions.create(model="millrace-tiny", prompt="Millrace is", max_tokens=4, temperature=0,
                                       echo=True, logprobs=2)
    assert answer.choices[0].text.startswith("Millrace is")
    assert answer.choices[0].logprobs.token_logprobs[0] is None


def test_embeddings_have_unit_length(client):
    answer = client.embeddings.create(model="millrace-tiny", input=["hello", "metrics"])
    assert len(answer.data) == 2
    for item in answer.data:
        assert math.isclose(sum(value * value for value in item.embedding), 1, rel_tol=1e-3)


@pytest.mark.parametrize("arguments, error, param, code", [
    (dict(model="nobody"), openai.NotFoundError, "model", "model_not_found"),
    (dict(temperature=9), openai.BadRequestError, "temperature", "invalid_value"),
    (dict(temperature="hot"), openai.BadRequestError, "temperature", "invalid_type"),
    (dict(max_tokens=100000), openai.BadRequestError, "messages", "context_length_exceeded"),
    (dict(messages=[]), openai.BadRequestError, "messages", "invalid_value"),
    (dict(messages="text"), openai.BadRequestError, "messages", "invalid_type"),
    (dict(messages=[{"content": "text"}]), openai.BadRequestError, "messages[0].role", "missing_required_parameter"),
    (dict(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"not": {}}}}),
     openai.BadRequestError, "response_format", "unsupported_value"),
    (dict(stream=True, extra_body={"prompt_logprobs": 1}), openai.BadRequestError, "prompt_logprobs",
     "unsupported_value"),
])
def test_errors_have_openai_s_shape(client, arguments, error, param, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "millrace-tiny", "messages": QUESTION, **arguments})
    assert caught.value.body["message"] and caught.value.type == "invalid_request_error"
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_wrong_key_has_openai_s_code(start):
    server = start("--api-key", "right")
    wrong = openai.OpenAI(base_url=server.base + "/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.models.list()
    assert caught.value.code == "invalid_api_key"


def test_choices_that_share_a_prompt_count_it_once(client):
    arguments = dict(model="millrace-tiny", prompt="The mill by the river turns all day long. " * 8, max_tokens=2)
    client.completions.create(**arguments)
    usage = client.completions.create(**arguments, n=4).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


CALCULATOR = {"type": "function", "function": {
    "name": "calculator", "description": "Evaluates an arithmetic expression.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}}}


def test_a_tool_is_called_and_its_result_used(client):
    messages = [{"role": "user", "content": "What is 4821 times 37?"}]
    asked = dict(model="millrace-tiny", temperature=0, max_tokens=80, tools=[CALCULATOR])
    choice = client.chat.completions.create(**asked, messages=messages).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    [call] = choice.message.tool_calls
    assert call.type == "function" and call.function.name == "calculator"
    assert json.loads(call.function.arguments) == {"expression": "4821 * 37"}
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": str(4821 * 37)}]
    answer = client.chat.completions.create(**asked, messages=messages).choices[0]
    assert answer.finish_reason == "stop" and str(4821 * 37) in answer.message.content


def test_a_streamed_call_is_the_same_call(client):
    asked = dict(model="millrace-tiny", temperature=0, max_tokens=80, tools=[CALCULATOR],
                 messages=[{"role": "user", "content": "What is 4821 times 37?"}])
    [call] = client.chat.completions.create(**asked).choices[0].message.tool_calls
    with client.beta.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    [streamed] = choice.message.tool_calls
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)



def test_an_answer_satisfies_its_schema(client):
    schema = {"type": "object", "required": ["city", "people"], "additionalProperties": False, "properties": {
        "city": {"type": "string", "maxLength": 20}, "people": {"type": "integer", "minimum": 1, "maximum": 99}}}
    answers = client.chat.completions.create(
        model="millrace-tiny", messages=[{"role": "user", "content": "A city, please."}], temperature=1, n=4, seed=1, max_tokens=120,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}})
    for choice in answers.choices:
        assert choice.finish_reason == "stop"
        city = json.loads(choice.message.content)
        assert list(city) == ["city", "people"] and len(city["city"]) <= 20 and 1 <= city["people"] <= 99


def test_any_object_and_completions(client):
    answer = client.completions.create(model="millrace-tiny", prompt="Here is some JSON: ", temperature=0, max_tokens=200,
                                       extra_body={"response_format": {"type": "json_object"}})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].text), dict)
    assert answer.choices[0].text.startswith("{")


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "required": ["city", "days"], "additionalProperties": False, "properties": {
        "city": {"type": "string", "maxLength": 16}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}}}}


def test_a_required_call_is_made_and_valid_at_any_temperature(client):
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answers = client.chat.completions.create(
            model="millrace-tiny", messages=[{"role": "user", "content": "Good morning!"}], tools=[WEATHER], tool_choice=choice,
            parallel_tool_calls=False, temperature=1, seed=3, n=25, max_tokens=120)
        for answer in answers.choices:
            [call] = answer.message.tool_calls
            assert answer.finish_reason == "tool_calls" and answer.message.content is None and call.function.name == "weather"
            arguments = json.loads(call.function.arguments)
            assert list(arguments) == ["city", "days"] and len(arguments["city"]) <= 16 and 1 <= arguments["days"] <= 7
