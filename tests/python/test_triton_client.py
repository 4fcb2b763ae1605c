# SPDX-License-Identifier: Apache-2.0
"""The official tritonclient (KServe v2 over gRPC) and reflection against the real server."""
import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
triton = pytest.importorskip("tritonclient.grpc", reason="PyPI's tritonclient is not installed")
numpy = pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def client(server):
    return triton.InferenceServerClient(server.grpc)


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("millrace-tiny")
    assert not client.is_model_ready("nobody")
    assert client.get_model_metadata("millrace-tiny").name == "millrace-tiny"


def test_infer_text_in_text_out(client):
    text = triton.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(numpy.array([b"Millrace is"], dtype=object))
    result = client.infer("millrace-tiny", [text], parameters={"max_tokens": 8, "temperature": 0})
    assert result.as_numpy("text_output")[0]


def test_reflection_lists_the_services(server):
    """ServerReflectionRequest{list_services: "*"} by hand: field 7, length-delimited."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                     request_serializer=bytes, response_deserializer=bytes)
        answer = next(call(iter([b"\x3a\x01*"])))
    for service in (b"millrace.v1.Inference", b"inference.GRPCInferenceService", b"grpc.health.v1.Health"):
        assert service in answer
