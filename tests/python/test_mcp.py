# SPDX-License-Identifier: Apache-2.0
"""Tool servers: one made with the official MCP SDK, of both eras of the protocol, asked through /v1/responses."""
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

import pytest

import openapi_schemas
from test_responses import events_of, post

pytest.importorskip("mcp.server.mcpserver", reason="PyPI's mcp is not installed, or too old")

MODEL = "millrace-tiny"
SERVER = str(pathlib.Path(__file__).with_name("mcp_server.py"))
TOKEN = "open-sesame"


def tools_of(label, *names):
    tool = {"type": "mcp", "server_label": label, "require_approval": "never"}
    return [{**tool, "allowed_tools": list(names)}] if names else [tool]


def forced(label, name, **more):
    """A request whose first turn calls that tool."""
    return {"model": MODEL, "temperature": 0, "input": "What is 4821 times 37?", "max_output_tokens": 200,
            "tools": tools_of(label, name), "tool_choice": {"type": "mcp", "server_label": label, "name": name}, **more}


def only_call(response):
    [call] = [item for item in response["output"] if item["type"] == "mcp_call"]
    return call


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def shop(folder):
    """A server with the same tool server twice: as it is now, and as it was."""
    import conftest
    entry = {"command": sys.executable, "env": {"SHOP_TOKEN": TOKEN}}
    config = folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {
        "shop": {**entry, "args": [SERVER, "--folder", str(folder)]},
        "old": {**entry, "args": [SERVER, "--old", "--folder", str(folder)], "allowed_tools": ["calculator", "environment"]},
        "missing": {"command": "no-such-program", "required": False}}}))
    server = conftest.Server(folder / "serve.log", "--mcp-config", str(config), "--enable-tools", "calculator")
    yield server
    assert server.stop() == 0, server.log()


@pytest.mark.parametrize("label", ["shop", "old"])
def test_a_tool_is_listed_called_and_answers(shop, label):
    events = events_of(shop.base, forced(label, "calculator"))
    for event in events:
        openapi_schemas.check_event(event)
    types = [event["type"] for event in events]
    for kind in ("mcp_list_tools.in_progress", "mcp_list_tools.completed", "mcp_call.in_progress",
                 "mcp_call_arguments.done"):
        assert types.count("response." + kind) == 1, types
    response = events[-1]["response"]
    listed, call = response["output"][:2]
    assert listed["type"] == "mcp_list_tools" and listed["server_label"] == label
    [tool] = listed["tools"]
    assert tool["name"] == "calculator" and tool["input_schema"]["required"] == ["expression"]
    assert call["type"] == "mcp_call" and call["server_label"] == label and call["name"] == "calculator"
    expression = json.loads(call["arguments"])["expression"]
    if expression.replace(" ", "") == "4821*37":
        assert call["output"] == str(4821 * 37) and call["status"] == "completed"
    # What was listed is not listed again.
    again = json.loads(post(shop.base, {"model": MODEL, "input": "Thank you!", "previous_response_id": response["id"],
                                        "tools": tools_of(label)}))
    assert "mcp_list_tools" not in [item["type"] for item in again["output"]]


def test_a_server_has_its_configuration_s_variables_and_its_secrets_reach_no_log(shop):
    assert "the shop is open, token [hidden]" in shop.log()
    assert TOKEN not in shop.log()
    assert "no program 'no-such-program'" in shop.log()


def test_labels_and_tools_that_are_not_there_are_refused(shop):
    for tools, message in [(tools_of("missing"), "there is: millrace, shop, old"), (tools_of("old", "die"), "calculator"),
                           ([{**tools_of("shop")[0], "server_url": "http://127.0.0.1"}], "server_url")]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(shop.base, {"model": MODEL, "input": "hi", "tools": tools})
        assert refused.value.code == 400 and message in refused.value.read().decode()


def test_a_client_that_leaves_cancels_the_call(shop, folder):
    request = urllib.request.Request(shop.base + "/v1/responses", json.dumps(forced("shop", "wait", stream=True)).encode(),
                                     {"content-type": "application/json"})
    answer = urllib.request.urlopen(request, timeout=60)
    wait_for(folder / "waiting")
    answer.close()
    wait_for(folder / "cancelled")


def test_a_server_that_dies_fails_the_call_and_serves_the_next(shop):
    call = only_call(json.loads(post(shop.base, forced("shop", "die"))))
    assert call["status"] == "failed" and "has ended" in call["error"]["content"]
    for _ in range(200):  # it may be given a pause
        call = only_call(json.loads(post(shop.base, forced("shop", "environment"))))
        if call["status"] == "completed":
            break
        time.sleep(0.1)
    assert call["status"] == "completed" and call["name"] == "environment"


def test_messages_offer_a_server_s_tools_too(shop):
    body = {"model": MODEL, "max_tokens": 200, "temperature": 0, "messages": [{"role": "user", "content": "What is 4821 times 37?"}],
            "tools": [{"type": "mcp_toolset", "mcp_server_name": "old", "default_config": {"enabled": False},
                       "configs": {"calculator": {"enabled": True}}}], "tool_choice": {"type": "any"}}
    content = json.loads(post(shop.base, body, "/v1/messages"))["content"]
    use, result = content[:2]
    assert use["type"] == "mcp_tool_use" and use["server_name"] == "old" and use["name"] == "calculator"
    assert result["type"] == "mcp_tool_result" and result["tool_use_id"] == use["id"]

    def count(asked):
        return json.loads(post(shop.base, asked, "/v1/messages/count_tokens"))["input_tokens"]

    assert count(body) > count({"model": MODEL, "messages": body["messages"]}) + 30
    body["tools"][0]["mcp_server_name"] = "other"
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(shop.base, body, "/v1/messages")
    assert refused.value.code == 400 and "no tool server 'other'" in refused.value.read().decode()


def test_a_required_server_that_does_not_come_up_keeps_us_from_starting(start, tmp_path):
    for entry, why in [({"command": sys.executable, "args": ["-c", "raise SystemExit(1)"]}, "has ended"),
                       ({"command": "no-such-program"}, "no program 'no-such-program'"),
                       ({"command": sys.executable, "args": [SERVER], "allowed_tools": ["rm"]}, "'rm'"),
                       ({"url": "http://127.0.0.1/mcp"}, "mcp.yaml:3: "),
                       ({"command": "x", "env": {"A": "${NO_SUCH_VARIABLE_HERE}"}}, "NO_SUCH_VARIABLE_HERE is not set")]:
        config = tmp_path / "mcp.yaml"
        config.write_text("enable_tools: []\nmcp_servers:\n  broken: " + json.dumps(entry))
        with pytest.raises(RuntimeError) as refused:
            start("--config", str(config))
        assert why in str(refused.value)
