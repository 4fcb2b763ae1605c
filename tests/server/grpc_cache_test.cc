// SPDX-License-Identifier: Apache-2.0
// The response cache behind the gRPC doors.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "cache/memory_store.h"
#include "server/caching/caching_generator.h"
#include "tests/server/grpc_fixture.h"

namespace millrace {
namespace {

struct Fixture {
  Fixture() {
    grpc.state.SetGenerator(MakeCachingGenerator({.inner = grpc.generator,
                                                  .cache = cache,
                                                  .model = {.name = "echo", .identity = Sha256("echo")},
                                                  .observer = &grpc.observer}));
  }
  ~Fixture() {
    grpc.server.reset();
    grpc.state.SetGenerator(nullptr);
  }

  struct Answered {
    std::string text, outcome;
    v1::Usage usage;
    grpc::Status status;
  };
  Answered Generate(const std::string& cache_control = "", absl::Duration limit = absl::Seconds(30)) {
    Context context(limit);
    if (!cache_control.empty()) context.AddMetadata("cache-control", cache_control);
    v1::GenerateRequest request;
    request.set_text("over and over");
    request.mutable_sampling()->set_temperature(0);
    request.mutable_sampling()->set_max_tokens(40);
    const auto reader = grpc.inference->Generate(&context, request);
    Answered answered;
    for (v1::GenerateResponse response; reader->Read(&response);) {
      answered.text += response.text();
      if (response.has_usage()) answered.usage = response.usage();
    }
    answered.status = reader->Finish();
    const auto& trailer = context.GetServerTrailingMetadata();
    if (const auto found = trailer.find("millrace-cache"); found != trailer.end()) {
      answered.outcome.assign(found->second.data(), found->second.size());
    }
    return answered;
  }

  ResponseCache cache{MakeMemoryStore({})};
  GrpcFixture grpc;
};

TEST_CASE("gRPC: an answer from the response cache is the same stream", "[grpc][response_cache]") {
  Fixture f;
  const auto miss = f.Generate();
  CHECK(miss.status.ok());
  CHECK(miss.outcome == "miss");
  const auto hit = f.Generate();
  CHECK(hit.status.ok());
  CHECK(hit.outcome == "hit");
  CHECK(hit.text == miss.text);
  CHECK(hit.text.size() == 40);
  CHECK(hit.usage.completion_tokens() == 40);
  CHECK(hit.usage.cached_tokens() == hit.usage.prompt_tokens());
  CHECK(hit.usage.prompt_tokens() == 13);
  CHECK(f.Generate("no-store").outcome == "bypass");
  CHECK(f.Generate("no-cache").outcome == "miss");
  CHECK(f.Generate("only-if-cached").outcome == "hit");
  f.cache.Purge({}).value();
  CHECK(f.Generate("only-if-cached").status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_CASE("gRPC: KServe's calls go through the response cache, too", "[grpc][response_cache]") {
  Fixture f;
  std::string text;
  for (int i = 0; i < 2; ++i) {
    Context context;
    inference::ModelInferRequest request;
    request.set_model_name("echo");
    auto* input = request.add_inputs();
    input->set_name("text_input");
    input->set_datatype("BYTES");
    input->add_shape(1);
    input->mutable_contents()->add_bytes_contents("abc");
    (*request.mutable_parameters())["temperature"].set_double_param(0);
    inference::ModelInferResponse response;
    REQUIRE(f.grpc.kserve->ModelInfer(&context, request, &response).ok());
    CHECK(context.GetServerTrailingMetadata().find("millrace-cache")->second == (i == 0 ? "miss" : "hit"));
    const std::string& answer = response.outputs(0).contents().bytes_contents(0);
    if (i == 0) text = answer;
    CHECK(answer == text);
  }
}

TEST_CASE("gRPC: a call that is out of time leaves the generation that it shares, and the last one ends it",
          "[grpc][response_cache]") {
  Fixture f;
  f.grpc.engine.SetPaused(true);
  const auto late = f.Generate("", absl::Milliseconds(200));
  CHECK(late.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  f.grpc.engine.SetPaused(false);
  CHECK(f.grpc.engine.WaitIdle());
  CHECK(f.cache.stats().store.num_entries == 0);
}

}  // namespace
}  // namespace millrace
