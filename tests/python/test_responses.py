# SPDX-License-Identifier: Apache-2.0
"""The Responses API: the official openai client against the real server, and every event against OpenAI's schemas."""
import json
import urllib.request

import pytest

import openapi_schemas

openai = pytest.importorskip("openai", minversion="3.57", reason="PyPI's openai is not installed, or too old")

MODEL = "millrace-tiny"
SUM = "What is 4821 times 37?"
RESULT = str(4821 * 37)
FUNCTION = {"type": "function", "name": "calculator", "description": "Evaluates an arithmetic expression.", "strict": True,
            "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}}
SERVER_TOOL = {"type": "mcp", "server_label": "millrace", "allowed_tools": ["calculator"], "require_approval": "never"}


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0)


def post(base, body, path="/v1/responses"):
    request = urllib.request.Request(base + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def events_of(base, body):
    """The stream's events, each with its name checked against its body's type; it must end with [DONE]."""
    frames = post(base, {"model": MODEL, "temperature": 0, "stream": True, **body}).strip().split("\n\n")
    assert frames.pop() == "data: [DONE]"
    events = []
    for frame in frames:
        if frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + events[-1]["type"]
    return events


STREAMS = {
    "text": {"input": "What is Millrace?"},
    "cut": {"input": "What is Millrace?", "max_output_tokens": 4},
    "function": {"input": SUM, "tools": [FUNCTION]},
    "required": {"input": "Good morning!", "tools": [FUNCTION], "tool_choice": "required", "max_output_tokens": 80},
    "server tool": {"input": SUM, "tools": [SERVER_TOOL]},
    "json": {"input": "A city, please.", "text": {"format": {"type": "json_schema", "name": "c", "schema": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}}}},
    "echo": {"input": [{"role": "user", "content": "Hello!"}], "instructions": "Be kind.", "metadata": {"k": "v"},
             "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "user": "u", "max_tool_calls": 3,
             "tools": [{"type": "web_search"}, FUNCTION], "tool_choice": "auto", "parallel_tool_calls": False},
}


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS.keys())
def test_every_event_satisfies_openai_s_schemas(server, body):
    events = events_of(server.base, body)
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        openapi_schemas.check_event(event)
    last = events[-1]["response"]
    with urllib.request.urlopen(f"{server.base}/v1/responses/{last['id']}", timeout=10) as stored:
        assert json.load(stored) == last
    with urllib.request.urlopen(f"{server.base}/v1/responses/{last['id']}/input_items", timeout=10) as items:
        openapi_schemas.check("ResponseItemList", json.load(items))


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS.keys())
def test_a_whole_answer_says_what_the_stream_says(server, body):
    whole = json.loads(post(server.base, {"model": MODEL, "temperature": 0, **body}))
    openapi_schemas.check("Response", whole)
    streamed = events_of(server.base, body)[-1]["response"]

    def without_names(response):
        items = [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]
        return items, response["status"], response["usage"]["output_tokens"]

    assert without_names(whole) == without_names(streamed)


def test_the_client_s_own_stream_ends_with_the_response(client):
    with client.responses.stream(model=MODEL, input="What is Millrace?", temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert "Millrace" in text and final.output_text == text and final.status == "completed"
    assert final.usage.total_tokens == final.usage.input_tokens + final.usage.output_tokens


def test_a_function_is_called_and_its_result_used(client):
    asked = dict(model=MODEL, temperature=0, tools=[FUNCTION])
    first = client.responses.create(**asked, input=SUM)
    [call] = first.output
    assert call.type == "function_call" and json.loads(call.arguments) == {"expression": "4821 * 37"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    by_reference = client.responses.create(**asked, input=[output], previous_response_id=first.id)
    assert RESULT in by_reference.output_text
    replayed = client.responses.create(**asked, store=False, input=[{"role": "user", "content": SUM}, call, output])
    assert replayed.output_text == by_reference.output_text
    assert replayed.usage.input_tokens == by_reference.usage.input_tokens


def test_a_tool_of_the_server_s_is_run_there(client):
    answer = client.responses.create(model=MODEL, temperature=0, input=SUM, tools=[SERVER_TOOL])
    call, message = answer.output
    assert call.type == "mcp_call" and call.server_label == "millrace" and call.output == RESULT and call.error is None
    assert RESULT in answer.output_text
    # What came of it is known to the next turn without being sent again.
    again = client.responses.create(model=MODEL, temperature=0, input="Thank you!", previous_response_id=answer.id)
    alone = client.responses.input_tokens.count(model=MODEL, input="Thank you!").input_tokens
    assert again.usage.input_tokens > alone + 30 and again.previous_response_id == answer.id


def test_programs_run_in_the_sandbox_beside_the_other_tools(start):
    try:
        server = start("--enable-tools", "calculator,python")
    except RuntimeError as refused:
        if "sandbox" not in str(refused) and "/usr/bin/python3" not in str(refused):
            raise
        pytest.skip("the python tool cannot run here: " + str(refused)[-200:])
    tools = [SERVER_TOOL, {"type": "code_interpreter", "container": {"type": "auto"}}]
    for question, kind, result in [("Use Python to print 55769 minus 867.", "code_interpreter_call", "54902"),
                                   (SUM, "mcp_call", RESULT)]:
        events = events_of(server.base, {"input": question, "tools": tools, "include": ["code_interpreter_call.outputs"]})
        for event in events:
            openapi_schemas.check_event(event)
        call, message = events[-1]["response"]["output"]
        assert call["type"] == kind and result in json.dumps(call)
        assert result in message["content"][0]["text"]


def test_a_named_function_is_called_with_valid_arguments(client):
    answer = client.responses.create(model=MODEL, temperature=1, input="Good morning!", tools=[FUNCTION],
                                     tool_choice={"type": "function", "name": "calculator"}, extra_body={"seed": 3},
                                     max_output_tokens=200)
    [call] = answer.output
    assert call.name == "calculator" and list(json.loads(call.arguments)) == ["expression"]


def test_an_answer_satisfies_its_schema(client):
    schema = {"type": "object", "required": ["city"], "additionalProperties": False,
              "properties": {"city": {"type": "string", "maxLength": 20}}}
    answer = client.responses.create(model=MODEL, temperature=1, input="A city, please.", extra_body={"seed": 1},
                                     text={"format": {"type": "json_schema", "name": "city", "schema": schema, "strict": True}})
    assert list(json.loads(answer.output_text)) == ["city"]


def test_stored_responses_are_found_listed_and_deleted(client):
    answer = client.responses.create(model=MODEL, temperature=0, input="Hello!")
    assert client.responses.retrieve(answer.id).output_text == answer.output_text
    [item] = client.responses.input_items.list(answer.id)
    assert item.content[0].text == "Hello!"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(answer.id)
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model=MODEL, input="And?", previous_response_id=answer.id)
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


def test_stored_responses_survive_a_restart(start, tmp_path):
    flags = ("--data-dir", str(tmp_path / "data"))
    first = start(*flags)
    answer = json.loads(post(first.base, {"model": MODEL, "temperature": 0, "input": "What is Millrace?"}))
    assert first.stop() == 0
    second = start(*flags)
    with urllib.request.urlopen(f"{second.base}/v1/responses/{answer['id']}", timeout=10) as stored:
        assert json.load(stored) == answer
    follow_up = json.loads(post(second.base, {"model": MODEL, "temperature": 0, "input": "Thanks!",
                                              "previous_response_id": answer["id"]}))
    assert follow_up["usage"]["input_tokens"] > answer["usage"]["input_tokens"]


def test_a_damaged_store_is_said_at_the_start(start, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "responses.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(RuntimeError, match=r"exited with 1[\s\S]*responses\.db"):
        start("--data-dir", str(tmp_path / "data"))


def test_the_count_of_a_prompt_is_exact(client):
    counted = client.responses.input_tokens.count(model=MODEL, input=SUM, tools=[FUNCTION])
    answer = client.responses.create(model=MODEL, temperature=0, input=SUM, tools=[FUNCTION])
    assert counted.input_tokens == answer.usage.input_tokens


@pytest.mark.parametrize("arguments, error, param, code", [
    (dict(model="nobody"), openai.NotFoundError, "model", "model_not_found"),
    (dict(temperature=9), openai.BadRequestError, "temperature", "invalid_value"),
    (dict(input=[{"role": "robot", "content": "x"}]), openai.BadRequestError, "input[0].role", "invalid_value"),
    (dict(input="word " * 5000), openai.BadRequestError, "input", "context_length_exceeded"),
    (dict(background=True), openai.BadRequestError, "background", "unsupported_value"),
    (dict(tools=[{"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:1"}]), openai.BadRequestError,
     "tools[0].server_url", "unsupported_parameter"),
    (dict(tools=[{"type": "mcp", "server_label": "nobody"}]), openai.BadRequestError, "tools", "unsupported_value"),
])
def test_errors_have_openai_s_shape(client, arguments, error, param, code):
    with pytest.raises(error) as caught:
        client.responses.create(**{"model": MODEL, "input": "Hello!", **arguments})
    assert caught.value.body["message"] and caught.value.type == "invalid_request_error"
    assert (caught.value.param, caught.value.code) == (param, code)


def test_an_agent_hears_in_the_stream_that_its_history_is_too_long(server):
    events = events_of(server.base, {"input": "word " * 5000})
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "context_length_exceeded"
