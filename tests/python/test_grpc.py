# SPDX-License-Identifier: Apache-2.0
"""The gRPC services as another language sees them: generated stubs, reflection and health by their raw wire format."""
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

grpc = pytest.importorskip("grpc")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    protoc, plugin = shutil.which("protoc"), shutil.which("grpc_python_plugin")
    if not protoc or not plugin:
        pytest.skip("protoc or grpc_python_plugin is not installed")
    out = tmp_path_factory.mktemp("stubs")
    files = ["millrace/v1/inference.proto", "millrace/v1/agents.proto", "kserve/v2/inference.proto"]
    subprocess.run([protoc, "-I", str(ROOT / "proto"), f"--python_out={out}", f"--grpc_python_out={out}",
                    f"--plugin=protoc-gen-grpc_python={plugin}", *files], check=True)
    sys.path.insert(0, str(out))
    try:
        from millrace.v1 import agents_pb2, agents_pb2_grpc, inference_pb2, inference_pb2_grpc
        try:  # tritonclient has the same package `inference`, and a process can hold only one
            from tritonclient.grpc import service_pb2 as kserve_pb2, service_pb2_grpc as kserve_grpc
        except ImportError:
            from kserve.v2 import inference_pb2 as kserve_pb2, inference_pb2_grpc as kserve_grpc
    finally:
        sys.path.remove(str(out))
    return inference_pb2, inference_pb2_grpc, kserve_pb2, kserve_grpc, agents_pb2, agents_pb2_grpc


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


def metric(server, name: str) -> float:
    text = urllib.request.urlopen(server.base + "/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines()
               if line.startswith(name + "{") or line.startswith(name + " "))


def chat_request(pb, text, **sampling):
    return pb.ChatRequest(messages=[pb.ChatMessage(role="user", content=text)], sampling=pb.SamplingParams(**sampling))


def test_chat_streams(stubs, channel):
    pb, pb_grpc = stubs[:2]
    messages = list(pb_grpc.InferenceStub(channel).Chat(
        chat_request(pb, "What is Millrace?", temperature=0, max_tokens=24), timeout=60))
    assert "".join(message.content for message in messages).strip()
    assert len(messages) > 3
    assert messages[-1].usage.completion_tokens > 0
    assert any(message.finish_reason for message in messages)


def test_the_same_text_over_http_and_grpc(stubs, channel, server):
    import json
    pb, pb_grpc = stubs[:2]
    body = {"model": "millrace-tiny", "prompt": "What is 12 + 30?", "temperature": 0, "max_tokens": 12}
    request = urllib.request.Request(server.base + "/v1/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    over_http = json.load(urllib.request.urlopen(request))["choices"][0]["text"]
    messages = pb_grpc.InferenceStub(channel).Generate(
        pb.GenerateRequest(text=body["prompt"], sampling=pb.SamplingParams(temperature=0, max_tokens=12)), timeout=60)
    assert "".join(message.text for message in messages) == over_http


def test_an_answer_comes_apart_as_over_http(stubs, channel):
    pb, pb_grpc = stubs[:2]
    stub = pb_grpc.InferenceStub(channel)
    request = chat_request(pb, "What is 4821 times 37?", temperature=0, max_tokens=80)
    request.tools.add(name="calculator", description="Evaluates an arithmetic expression.",
                      parameters='{"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}')
    raw = "".join(message.content for message in stub.Chat(request, timeout=60))
    assert "<tool_call>" in raw
    request.parse_output = True
    parsed = list(stub.Chat(request, timeout=60))
    calls = [call for message in parsed for call in message.tool_calls]
    assert [call.name for call in calls] == ["calculator"] and "4821 * 37" in calls[0].arguments
    assert "<tool_call>" not in "".join(message.content for message in parsed)
    assert pb.FINISH_REASON_TOOL_CALLS in [message.finish_reason for message in parsed]
    request.tool_choice.mode = pb.ToolChoice.MODE_NONE
    assert not any(message.tool_calls for message in stub.Chat(request, timeout=60))


def test_an_answer_satisfies_its_schema(stubs, channel):
    import json
    pb, pb_grpc = stubs[:2]
    request = chat_request(pb, "A city, please.", temperature=0.9, seed=3, max_tokens=80)
    request.response_format.json_schema = json.dumps({
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]})
    answer = json.loads("".join(message.content for message in pb_grpc.InferenceStub(channel).Chat(request, timeout=60)))
    assert list(answer) == ["city"] and len(answer["city"]) <= 9


def test_a_run_calls_a_tool_and_answers(stubs, channel):
    pb, agents, agents_grpc = stubs[0], stubs[4], stubs[5]
    request = agents.StartRunRequest(messages=[pb.ChatMessage(role="user", content="What is 4821 times 37?")],
                                     server_tools=["calculator"], sampling=pb.SamplingParams(temperature=0))
    events = list(agents_grpc.AgentsStub(channel).StartRun(request, timeout=60))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "turn_began" and kinds[-1] == "run_ended"
    [answered] = [event.call_answered for event in events if event.WhichOneof("event") == "call_answered"]
    assert answered.text == str(4821 * 37) and not answered.is_error
    ended = events[-1].run_ended
    assert ended.end == agents.RUN_END_ANSWERED and ended.turns == 2 and ended.usage.cached_tokens > 0
    text = "".join(event.text for event in events if event.turn == 1)
    assert str(4821 * 37) in text and ended.messages[-1].content == text
    assert not agents_grpc.AgentsStub(channel).ListAgents(agents.ListAgentsRequest(), timeout=30).agents


def test_tokens_embeddings_models(stubs, channel):
    pb, pb_grpc = stubs[:2]
    stub = pb_grpc.InferenceStub(channel)
    text = "The mill turns: déjà vu 42"
    tokens = stub.Tokenize(pb.TokenizeRequest(text=text, add_special_tokens=False), timeout=30)
    assert stub.Detokenize(pb.DetokenizeRequest(token_ids=tokens.token_ids), timeout=30).text == text
    chat = stub.Tokenize(pb.TokenizeRequest(messages=[pb.ChatMessage(role="user", content="hi")]), timeout=30)
    assert len(chat.token_ids) > 1
    embedded = stub.Embed(pb.EmbedRequest(inputs=[{"text": "one"}, {"text": "two"}]), timeout=60)
    assert len(embedded.embeddings) == 2
    assert len(embedded.embeddings[0].values) == len(embedded.embeddings[1].values) > 8
    assert stub.ListModels(pb.ListModelsRequest(), timeout=30).models[0].id == "millrace-tiny"


def test_errors_have_code_and_field(stubs, channel):
    pb, pb_grpc = stubs[:2]
    stub = pb_grpc.InferenceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Chat(chat_request(pb, "hi", temperature=9), timeout=30))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    trailing = [(key, value) for key, value in caught.value.trailing_metadata()]
    assert ("millrace-param", "temperature") in trailing and ("millrace-code", "invalid_value") in trailing
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(pb.GenerateRequest(model="nobody", text="x"), timeout=30))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_cancel_and_deadline_free_the_pages(stubs, channel, server):
    pb, pb_grpc = stubs[:2]
    stub = pb_grpc.InferenceStub(channel)
    endless = chat_request(pb, "Count.", max_tokens=400, ignore_eos=True)
    for _ in range(5):
        call = stub.Chat(endless, timeout=60)
        next(call)
        call.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Chat(endless, timeout=0.05))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for _ in range(200):
        if metric(server, "vllm:num_requests_running") == 0 and metric(server, "vllm:kv_cache_usage_perc") == 0:
            return
        time.sleep(0.05)
    pytest.fail("pages are still in use")


def test_many_streams_equal_their_solo_runs(stubs, channel):
    pb, pb_grpc = stubs[:2]
    stub = pb_grpc.InferenceStub(channel)

    def run(seed):
        request = chat_request(pb, "Give me a fact.", temperature=0.9, seed=seed, max_tokens=16)
        return [token for message in stub.Chat(request, timeout=120) for token in message.token_ids]

    solo = [run(seed) for seed in range(8)]
    crowd = [None] * 8
    threads = [threading.Thread(target=lambda i=i: crowd.__setitem__(i, run(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowd == solo


def test_kserve_infer_and_stream(stubs, channel):
    kserve, kserve_grpc = stubs[2:4]
    stub = kserve_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ServerReady(kserve.ServerReadyRequest(), timeout=30).ready
    assert stub.ModelReady(kserve.ModelReadyRequest(name="millrace-tiny"), timeout=30).ready

    def request(**parameters):
        made = kserve.ModelInferRequest(model_name="millrace-tiny", id="a")
        tensor = made.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(b"What is 12 + 30?")
        for name, (kind, value) in parameters.items():
            setattr(made.parameters[name], kind, value)
        return made

    common = {"max_tokens": ("int64_param", 12), "temperature": ("double_param", 0.0)}
    whole = stub.ModelInfer(request(**common), timeout=60)
    pieces = list(stub.ModelStreamInfer(iter([request(stream=("bool_param", True), **common)]), timeout=60))
    text = b"".join(piece.infer_response.outputs[0].contents.bytes_contents[0] for piece in pieces)
    assert text == whole.outputs[0].contents.bytes_contents[0]
    assert [piece.infer_response.parameters["triton_final_response"].bool_param for piece in pieces][-1] is True


def test_tritonclient_streams_in_pieces(server):
    triton = pytest.importorskip("tritonclient.grpc", reason="PyPI's tritonclient is not installed")
    numpy = pytest.importorskip("numpy")
    client = triton.InferenceServerClient(server.grpc)
    text = triton.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(numpy.array([b"What is 12 + 30?"], dtype=object))
    limit = triton.InferInput("max_tokens", [1], "INT32")
    limit.set_data_from_numpy(numpy.array([12], dtype=numpy.int32))
    pieces, done = [], threading.Event()

    def on_piece(result, error):
        pieces.append(str(error) if error else result.as_numpy("text_output")[0])
        if error or result.get_response().parameters["triton_final_response"].bool_param:
            done.set()

    client.start_stream(on_piece)
    client.async_stream_infer("millrace-tiny", [text, limit], parameters={"temperature": 0, "stream": True})
    assert done.wait(60)
    client.stop_stream()
    whole = client.infer("millrace-tiny", [text, limit], parameters={"temperature": 0}).as_numpy("text_output")[0]
    assert len(pieces) > 2
    assert b"".join(pieces) == whole


def fields(message: bytes):
    """The length-delimited fields of a protobuf message, as (number, bytes); others are passed over."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            size = varint()
            found.append((key >> 3, message[at:at + size]))
            at += size
        elif key & 7 == 0:
            varint()
        else:
            at += 8 if key & 7 == 1 else 4
    return found


def test_reflection_names_services_and_gives_their_files(channel):
    ask = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                request_serializer=bytes, response_deserializer=bytes)
    symbol = b"millrace.v1.Inference"
    listed, described = list(ask(iter([b"\x3a\x00", b"\x22" + bytes([len(symbol)]) + symbol]), timeout=30))
    services = {dict(fields(service))[1].decode()
                for number, group in fields(listed) if number == 6 for _, service in fields(group)}
    assert {"millrace.v1.Inference", "millrace.v1.Agents", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
    from google.protobuf import descriptor_pb2
    files = [descriptor_pb2.FileDescriptorProto.FromString(file)
             for number, group in fields(described) if number == 4 for _, file in fields(group)]
    methods = {method.name for file in files for service in file.service for method in service.method}
    assert {"Generate", "Chat", "Embed", "Tokenize", "Detokenize", "ListModels"} <= methods


def test_health_is_serving(channel):
    check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
    for service in (b"", b"millrace.v1.Inference", b"millrace.v1.Agents", b"inference.GRPCInferenceService"):
        request = b"\x0a" + bytes([len(service)]) + service if service else b""
        for _ in range(100):  # it is told of the engine's health twice a second
            if check(request, timeout=30) == b"\x08\x01":
                break
            time.sleep(0.05)
        assert check(request, timeout=30) == b"\x08\x01"


def test_keys_guard_grpc_too(stubs, start):
    pb, pb_grpc = stubs[:2]
    guarded = start("--api-key", "secret")
    with grpc.insecure_channel(guarded.grpc) as opened:
        stub = pb_grpc.InferenceStub(opened)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListModels(pb.ListModelsRequest(), timeout=30)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert stub.ListModels(pb.ListModelsRequest(), metadata=[("authorization", "Bearer secret")], timeout=30).models
