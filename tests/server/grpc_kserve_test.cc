// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cstring>

#include "server/grpc/kserve_tensors.h"
#include "tests/server/grpc_fixture.h"

namespace millrace {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

std::string Raw(std::initializer_list<std::string> texts) {
  std::string raw;
  for (const std::string& text : texts) {
    const uint32_t num_bytes = static_cast<uint32_t>(text.size());
    raw.append(reinterpret_cast<const char*>(&num_bytes), 4);
    raw += text;
  }
  return raw;
}

ModelInferRequest::InferInputTensor* AddInput(ModelInferRequest& request, const char* name, const char* type,
                                              int64_t num_elements) {
  auto* input = request.add_inputs();
  input->set_name(name);
  input->set_datatype(type);
  input->add_shape(num_elements);
  return input;
}

ModelInferRequest MakeRequest(const std::string& text, int32_t max_tokens) {
  ModelInferRequest request;
  request.set_model_name("echo");
  request.set_id("seven");
  AddInput(request, "text_input", "BYTES", 1)->mutable_contents()->add_bytes_contents(text);
  (*request.mutable_parameters())["max_tokens"].set_int64_param(max_tokens);
  return request;
}

TEST_CASE("Kserve: health and metadata", "[grpc]") {
  GrpcFixture fixture;
  inference::ServerLiveResponse live;
  inference::ServerReadyResponse ready;
  inference::ModelReadyResponse model_ready;
  inference::ModelReadyRequest ask;
  const auto is_model_ready = [&](const char* name) {
    Context context;
    ask.set_name(name);
    REQUIRE(fixture.kserve->ModelReady(&context, ask, &model_ready).ok());
    return model_ready.ready();
  };
  const auto is_ready = [&] {
    Context context;
    REQUIRE(fixture.kserve->ServerReady(&context, {}, &ready).ok());
    return ready.ready();
  };
  Context first, second, third;
  REQUIRE(fixture.kserve->ServerLive(&first, {}, &live).ok());
  CHECK(live.live());
  CHECK(is_ready());
  CHECK(is_model_ready("parrot"));
  CHECK_FALSE(is_model_ready("nobody"));
  fixture.state.SetHealth(EngineHealth::kStuck);
  CHECK_FALSE(is_ready());
  CHECK_FALSE(is_model_ready("echo"));
  inference::ServerMetadataResponse server;
  REQUIRE(fixture.kserve->ServerMetadata(&second, {}, &server).ok());
  CHECK(server.name() == "millrace");
  CHECK(server.version() == "1.2.3");
  inference::ModelMetadataRequest about;
  about.set_name("echo");
  inference::ModelMetadataResponse model;
  REQUIRE(fixture.kserve->ModelMetadata(&third, about, &model).ok());
  CHECK(model.inputs(0).name() == "text_input");
  CHECK(model.outputs(0).datatype() == "BYTES");
}

TEST_CASE("Kserve: ModelInfer with typed contents and parameters", "[grpc]") {
  GrpcFixture fixture;
  ModelInferRequest request = MakeRequest("ab", 5);
  (*request.mutable_parameters())["temperature"].set_double_param(0);
  (*request.mutable_parameters())["unknown_to_us"].set_string_param("tolerated");
  ModelInferResponse response;
  Context context;
  REQUIRE(fixture.kserve->ModelInfer(&context, request, &response).ok());
  CHECK(response.id() == "seven");
  CHECK(response.model_name() == "echo");
  REQUIRE(response.outputs_size() == 3);
  CHECK(response.outputs(0).contents().bytes_contents(0) == "ababa");
  CHECK(response.outputs(1).contents().bytes_contents(0) == "length");
  CHECK(response.outputs(2).contents().int_contents(0) == 5);
  CHECK(response.raw_output_contents_size() == 0);
}

TEST_CASE("Kserve: ModelInfer with raw contents, a batch, scalar tensors, chosen outputs", "[grpc]") {
  GrpcFixture fixture;
  ModelInferRequest request;
  request.set_model_name("echo");
  AddInput(request, "text_input", "BYTES", 2);
  AddInput(request, "max_tokens", "INT32", 1);
  AddInput(request, "sampling_parameters", "BYTES", 1);
  request.add_raw_input_contents(Raw({"ab", "xyz"}));
  request.add_raw_input_contents(std::string("\x06\0\0\0", 4));
  request.add_raw_input_contents(Raw({R"({"temperature": "0", "stop": ["y"]})"}));
  request.add_outputs()->set_name("text_output");
  ModelInferResponse response;
  Context context;
  const grpc::Status status = fixture.kserve->ModelInfer(&context, request, &response);
  INFO(status.error_message());
  REQUIRE(status.ok());
  REQUIRE(response.outputs_size() == 1);
  CHECK(response.outputs(0).shape(0) == 2);
  REQUIRE(response.raw_output_contents_size() == 1);
  CHECK(response.raw_output_contents(0) == Raw({"ababab", "x"}));
}

TEST_CASE("Kserve: ModelStreamInfer answers many requests on one stream, in pieces or whole", "[grpc]") {
  GrpcFixture fixture;
  Context context;
  auto stream = fixture.kserve->ModelStreamInfer(&context);
  ModelInferRequest streamed = MakeRequest("abc", 7), whole = MakeRequest("xy", 4), bad = MakeRequest("", 4);
  (*streamed.mutable_parameters())["stream"].set_bool_param(true);
  whole.set_id("whole");
  bad.set_id("bad");
  for (const auto& request : {streamed, bad, whole}) REQUIRE(stream->Write(request));
  REQUIRE(stream->WritesDone());
  std::map<std::string, std::string> text;
  std::map<std::string, int> num_messages, num_final;
  inference::ModelStreamInferResponse response;
  while (stream->Read(&response)) {
    const ModelInferResponse& answer = response.infer_response();
    ++num_messages[answer.id()];
    if (!response.error_message().empty()) {
      CHECK(answer.id() == "bad");
      continue;
    }
    text[answer.id()] += answer.outputs(0).contents().bytes_contents(0);
    num_final[answer.id()] += answer.parameters().at("triton_final_response").bool_param();
  }
  CHECK(stream->Finish().ok());
  CHECK(text["seven"] == "abcabca");
  CHECK(num_messages["seven"] >= 7);
  CHECK(num_final["seven"] == 1);
  CHECK(text["whole"] == "xyxy");
  CHECK(num_messages["whole"] == 1);
  CHECK(num_messages["bad"] == 1);
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("Kserve: a cancelled stream frees all its requests", "[grpc]") {
  GrpcFixture fixture;
  Context context;
  auto stream = fixture.kserve->ModelStreamInfer(&context);
  ModelInferRequest request = MakeRequest("abc", 1500);
  (*request.mutable_parameters())["stream"].set_bool_param(true);
  for (int i = 0; i < 5; ++i) REQUIRE(stream->Write(request));
  inference::ModelStreamInferResponse response;
  REQUIRE(stream->Read(&response));
  context.TryCancel();
  while (stream->Read(&response)) {
  }
  CHECK(stream->Finish().error_code() == grpc::StatusCode::CANCELLED);
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("Kserve: tensors that lie are refused by name", "[grpc]") {
  struct Case {
    const char* says;
    std::function<void(ModelInferRequest&)> spoil;
  };
  const auto raw = [](std::string bytes) {
    return [bytes](ModelInferRequest& r) {
      r.mutable_inputs(0)->clear_contents();
      r.add_raw_input_contents(bytes);
    };
  };
  const std::vector<Case> cases = {
      {"impossible shape", [](auto& r) { r.mutable_inputs(0)->set_shape(0, -1); }},
      {"impossible shape", [](auto& r) { r.mutable_inputs(0)->set_shape(0, INT64_MAX); }},
      {"impossible shape",
       [](auto& r) {
         r.mutable_inputs(0)->set_shape(0, 2000);
         r.mutable_inputs(0)->add_shape(2000);
       }},
      {"does not hold", [](auto& r) { r.mutable_inputs(0)->set_shape(0, 2); }},
      {"unknown type", [](auto& r) { r.mutable_inputs(0)->set_datatype("FP17"); }},
      {"must be BYTES",
       [](auto& r) {
         r.mutable_inputs(0)->set_datatype("INT32");
         r.mutable_inputs(0)->mutable_contents()->clear_bytes_contents();
         r.mutable_inputs(0)->mutable_contents()->add_int_contents(3);
       }},
      {"both raw and typed", [](auto& r) { r.add_raw_input_contents("x"); }},
      {"does not hold", raw("")},
      {"does not hold", raw(std::string("\xff\xff\xff\xff", 4))},
      {"does not hold", raw(Raw({"a"}) + "b")},
      {"raw contents for",
       [](auto& r) {
         r.add_raw_input_contents("");
         r.add_raw_input_contents("");
       }},
      {"required", [](auto& r) { r.clear_inputs(); }},
      {"wrong type", [](auto& r) { (*r.mutable_parameters())["max_tokens"].set_string_param("many"); }},
      {"wrong type", [](auto& r) { (*r.mutable_parameters())["max_tokens"].set_double_param(1e300); }},
      {"temperature", [](auto& r) { (*r.mutable_parameters())["temperature"].set_double_param(-1); }},
      {"no output tensor", [](auto& r) { r.add_outputs()->set_name("nothing"); }},
      {"JSON object",
       [](auto& r) { AddInput(r, "sampling_parameters", "BYTES", 1)->mutable_contents()->add_bytes_contents("[1]"); }},
  };
  for (const Case& fault : cases) {
    ModelInferRequest request = MakeRequest("abc", 5);
    fault.spoil(request);
    const auto task = ReadInferRequest(request);
    INFO(fault.says << " / " << task.status().ToString());
    REQUIRE(absl::IsInvalidArgument(task.status()));
    CHECK(std::string(task.status().message()).find(fault.says) != std::string::npos);
  }
}

}  // namespace
}  // namespace millrace
