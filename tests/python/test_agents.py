# SPDX-License-Identifier: Apache-2.0
"""Agents of the operator's, asked by the official clients as if they were models, on the bundled model."""
import signal
import time

import pytest

openai = pytest.importorskip("openai", minversion="3.57", reason="PyPI's openai is not installed, or too old")

SUM = "What is 4821 times 37?"
RESULT = str(4821 * 37)
AGENTS = """
agents:
- name: accountant
  description: Adds up.
  tools: [calculator]
  sampling: {temperature: 0}
  limits: {max_turns: 4, max_output_tokens: 200}
- name: secret
  tenants: [nobody]
"""


@pytest.fixture
def serving(start, tmp_path):
    path = tmp_path / "agents.yaml"
    path.write_text(AGENTS, encoding="utf-8")
    server = start("--agents", str(path))
    return server, path, openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=0)


def test_an_agent_answers_on_every_door(serving):
    server, _, client = serving
    models = client.models.list().data
    assert [(model.id, model.owned_by) for model in models] == [("millrace-tiny", "millrace"), ("accountant", "agent")]
    messages = [{"role": "user", "content": SUM}]
    whole = client.chat.completions.create(model="accountant", messages=messages)
    assert RESULT in whole.choices[0].message.content and whole.choices[0].message.tool_calls is None
    assert whole.model == "accountant" and whole.choices[0].finish_reason == "stop"
    chunks = list(client.chat.completions.create(model="accountant", messages=messages, stream=True,
                                                 stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    response = client.responses.create(model="accountant", input=SUM)
    assert [item.type for item in response.output] == ["mcp_call", "message"] and RESULT in response.output_text
    counted = client.responses.input_tokens.count(model="accountant", input=SUM).input_tokens
    assert counted > client.responses.input_tokens.count(model="millrace-tiny", input=SUM).input_tokens
    anthropic = pytest.importorskip("anthropic")
    message = anthropic.Anthropic(base_url=server.base, api_key="none").messages.create(
        model="accountant", max_tokens=200, messages=messages)
    assert RESULT in message.content[-1].text and message.model == "accountant"


def test_a_function_of_the_client_s_comes_back(serving):
    _, _, client = serving
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {
        "type": "object", "properties": {"key": {"type": "string", "maxLength": 8}}, "required": ["key"]}}}
    choice = client.chat.completions.create(
        model="accountant", messages=[{"role": "user", "content": "Good morning!"}], tools=[tool],
        tool_choice={"type": "function", "function": {"name": "look_up"}}).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls[0].function.name == "look_up"


def test_agents_are_read_again_and_faults_change_nothing(serving):
    server, path, client = serving
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="secret", input=SUM)

    def reload_until(text):
        server.process.send_signal(signal.SIGHUP)
        for _ in range(200):
            if text in server.log():
                return
            time.sleep(0.05)
        raise AssertionError(server.log())

    path.write_text("agents: [{name: other, tools: [shovel]}]", encoding="utf-8")
    reload_until("this server has no tool 'shovel'")
    assert client.models.retrieve("accountant").id == "accountant"
    path.write_text("agents: [{name: other}]", encoding="utf-8")
    reload_until("the agents were read again")
    assert client.models.retrieve("other").id == "other"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("accountant")


def test_a_file_at_fault_stops_the_start(start, tmp_path):
    path = tmp_path / "agents.yaml"
    path.write_text("agents:\n- name: a\n  tools: [clock, shovel]\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"agents\.yaml:3: this server has no tool 'shovel'"):
        start("--agents", str(path))
