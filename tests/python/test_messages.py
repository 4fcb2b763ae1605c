# SPDX-License-Identifier: Apache-2.0
"""Anthropic's Messages API: its official client against the real server."""
import pytest

anthropic = pytest.importorskip("anthropic", reason="PyPI's anthropic is not installed")

MODEL = "millrace-tiny"
QUESTION = [{"role": "user", "content": "What is Millrace?"}]
SUM = [{"role": "user", "content": "What is 4821 times 37?"}]
RESULT = str(4821 * 37)
CALCULATOR = {"name": "calculator", "description": "Evaluates an arithmetic expression.", "input_schema": {
    "type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}}


@pytest.fixture(scope="module")
def client(server):
    return anthropic.Anthropic(base_url=server.base, api_key="none", max_retries=0)


def ask(**more):
    # The current client has no argument for the temperature any more.
    return {"model": MODEL, "max_tokens": 80, "messages": QUESTION, "extra_body": {"temperature": 0}, **more}


def test_a_message_answers_with_usage(client):
    answer = client.messages.create(**ask(system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]))
    [block] = answer.content
    assert "Millrace" in block.text and answer.stop_reason == "end_turn" and answer.role == "assistant"
    assert answer.usage.output_tokens > 0


def test_a_stream_adds_up_to_the_whole_message(client):
    whole = client.messages.create(**ask())
    with client.messages.stream(**ask()) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens


def test_the_events_come_in_anthropic_s_order(client):
    types = [event.type for event in client.messages.create(**ask(), stream=True)]
    assert types[0] == "message_start" and types[-2:] == ["message_delta", "message_stop"]
    assert types.index("content_block_start") < types.index("content_block_delta") < types.index("content_block_stop")


def test_a_tool_is_called_and_its_result_used(client):
    asked = ask(tools=[CALCULATOR], messages=SUM)
    first = client.messages.create(**asked)
    [call] = first.content
    assert first.stop_reason == "tool_use" and call.name == "calculator" and call.input == {"expression": "4821 * 37"}
    with client.messages.stream(**asked) as stream:
        [streamed] = stream.get_final_message().content
    assert streamed.input == call.input
    answer = client.messages.create(**ask(tools=[CALCULATOR], messages=SUM + [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "A sum.", "signature": "x"}, *first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT}]}]))
    assert RESULT in answer.content[0].text


@pytest.mark.parametrize("choice", [{"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "calculator"}])
def test_a_required_tool_is_called(client, choice):
    answer = client.messages.create(**ask(tools=[CALCULATOR], tool_choice=choice, messages=SUM))
    [call] = answer.content
    assert answer.stop_reason == "tool_use" and list(call.input) == ["expression"]


def test_tools_can_be_left_alone(client):
    answer = client.messages.create(**ask(tools=[CALCULATOR], tool_choice={"type": "none"}, messages=SUM))
    assert answer.stop_reason != "tool_use"


def test_stop_sequences_and_limits_say_why_it_stopped(client):
    text = client.messages.create(**ask()).content[0].text
    cut = client.messages.create(**ask(stop_sequences=[text[8:12]]))
    assert cut.stop_reason == "stop_sequence" and cut.stop_sequence == text[8:12]
    assert cut.content[0].text == text[:text.index(text[8:12])]
    assert client.messages.create(**ask(max_tokens=3)).stop_reason == "max_tokens"


def test_a_prefilled_answer_is_gone_on_with(client):
    text = client.messages.create(**ask()).content[0].text
    answer = client.messages.create(**ask(messages=QUESTION + [{"role": "assistant", "content": text[:12]}]))
    assert not answer.content[0].text.startswith(text[:12]) and len(answer.content[0].text) < len(text)


def test_the_count_of_a_prompt_is_exact(client):
    asked = dict(model=MODEL, messages=SUM, tools=[CALCULATOR], system="Be kind.")
    counted = client.messages.count_tokens(**asked).input_tokens
    usage = client.messages.create(**asked, max_tokens=5).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.parametrize("arguments, error, kind", [
    (dict(model="nobody"), anthropic.NotFoundError, "not_found_error"),
    (dict(messages=[]), anthropic.BadRequestError, "invalid_request_error"),
    (dict(messages=[{"role": "user", "content": "word " * 5000}]), anthropic.BadRequestError, "invalid_request_error"),
])
def test_errors_have_anthropic_s_shape(client, arguments, error, kind):
    with pytest.raises(error) as caught:
        client.messages.create(**ask(**arguments))
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == kind
    assert caught.value.body["error"]["message"] and caught.value.body["request_id"]


def test_anthropic_s_header_carries_the_key(start):
    server = start("--api-key", "right")
    right = anthropic.Anthropic(base_url=server.base, api_key="right", max_retries=0)
    assert right.messages.create(**ask(max_tokens=2)).stop_reason == "max_tokens"
    wrong = anthropic.Anthropic(base_url=server.base, api_key="wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError) as caught:
        wrong.messages.create(**ask())
    assert caught.value.body["error"]["type"] == "authentication_error"
