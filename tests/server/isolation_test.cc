// SPDX-License-Identifier: Apache-2.0
// Tenants beside each other: every route of the OpenAPI document is asked without a key, with a key that lacks the
// role, and with another tenant's key for things that are not its own. New routes are covered by being in the document.
#include <catch2/catch.hpp>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr char kOwnText[] = "what tenant a alone may read";
constexpr char kKeys[] =
    "tenants:\n- {name: a}\n- {name: b}\n"
    "keys:\n- {key: key-a, tenant: a}\n- {key: key-b, tenant: b}\n"
    "- {key: key-m, tenant: a, roles: metrics}\n- {key: key-r, roles: admin}\n";

// The least that a schema of the document accepts, with `text` where words are wanted.
json Sample(const json& schema, const json& document, const std::string& text) {
  if (schema.contains("$ref")) {
    const std::string target = schema["$ref"].get<std::string>().substr(1);
    return Sample(document.at(json::json_pointer(target)), document, text);
  }
  json sample;
  for (const json& part : schema.value("allOf", json::array())) {
    json object = Sample(part, document, text);
    if (object.is_object()) sample.update(object);
  }
  if (!sample.is_null()) return sample;
  for (const char* choice : {"oneOf", "anyOf"}) {
    if (schema.contains(choice)) return Sample(schema[choice][0], document, text);
  }
  if (schema.contains("enum")) return schema["enum"][0];
  if (schema.contains("const")) return schema["const"];
  const json type = schema.value("type", json("object"));
  const std::string name = type.is_array() ? type[0] : type;
  if (name == "string") return text;
  if (name == "array") return json::array({Sample(schema.value("items", json{{"type", "string"}}), document, text)});
  if (name == "boolean") return false;
  if (name == "integer" || name == "number") return 1;
  sample = json::object();
  const json properties = schema.value("properties", json::object());
  std::set<std::string> wanted = schema.value("required", std::set<std::string>());
  if (properties.contains("content")) wanted.insert("content");
  for (const std::string& field : wanted) {
    sample[field] = field == "role"    ? json("user")
                    : field == "model" ? json("fake")
                                       : Sample(properties.value(field, json{{"type", "string"}}), document, text);
  }
  return sample;
}

struct Operation {
  std::string method, path;
  json what;
  bool is_open() const { return what.contains("security") && what["security"].empty(); }
  bool has_argument() const { return path.find('{') != std::string::npos; }
  std::string PathWith(const std::string& id) const {
    std::string concrete;
    for (size_t at = 0; at < path.size(); ++at) {
      if (path[at] != '{') {
        concrete += path[at];
        continue;
      }
      concrete += id;
      at = path.find('}', at);
    }
    return concrete;
  }
  json Schema() const {
    const json::json_pointer at("/requestBody/content/application~1json/schema");
    return what.contains(at) ? what.at(at) : json();
  }
  std::string Body(const json& document, const std::string& text) const {
    return Schema().is_null() ? "" : Sample(Schema(), document, text).dump();
  }
};

std::vector<Operation> OperationsOf(const json& document) {
  std::vector<Operation> operations;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, what] : methods.items()) {
      std::string upper;
      for (const char c : method) upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      operations.push_back({upper, path, what});
    }
  }
  return operations;
}

std::string KeyHeader(const std::string& key) { return absl::StrCat("Authorization: Bearer ", key, "\r\n"); }

// Every "id" anywhere in an answer.
void CollectIds(const json& value, std::set<std::string>& ids) {
  if (value.is_object() && value.contains("id") && value["id"].is_string()) ids.insert(value["id"].get<std::string>());
  if (!value.is_structured()) return;
  for (const json& part : value) CollectIds(part, ids);
}

// What the engine was given in a tenant's name.
std::string PromptsOf(const ApiFixture& f, const std::string& tenant) {
  std::string text;
  for (const Request& request : f.engine->submitted()) {
    if (request.tenant.name != tenant) continue;
    for (const int32_t token : request.prompt_tokens) text += static_cast<char>(token);
  }
  return text;
}

constexpr char kAgents[] =
    "agents:\n- {name: agent-of-a, description: what tenant a alone may read, instructions: what tenant a alone may "
    "read, tenants: [a]}\n";

struct Tenants {
  Tenants() {
    REQUIRE(f.keys.AddText(kKeys, "keys").ok());
    REQUIRE(f.DefineAgents(kAgents).ok());
    document = f.Call("GET", "/openapi.json", "", KeyHeader("key-a")).json;
    operations = OperationsOf(document);
    REQUIRE(operations.size() >= 14);
  }
  JsonReply As(const std::string& key, const Operation& operation, const std::string& id, const std::string& body) {
    return f.Call(operation.method, operation.PathWith(id), body, key.empty() ? "" : KeyHeader(key));
  }

  ApiFixture f;
  json document;
  std::vector<Operation> operations;
};

TEST_CASE("Isolation: every route but the probes wants a key, and the key a role", "[isolation]") {
  Tenants t;
  const std::set<std::string> for_any_key = {"/version", "/openapi.json"};
  for (const Operation& operation : t.operations) {
    INFO(operation.method << " " << operation.path);
    const std::string body = operation.Body(t.document, "x");
    const auto status = [&](const std::string& key) { return t.As(key, operation, "x", body).status; };
    if (operation.is_open()) {
      CHECK(std::set<std::string>{"/livez", "/readyz", "/health", "/ping"}.contains(operation.path));
      CHECK(status("") == 200);
      continue;
    }
    CHECK(status("") == 401);
    CHECK(status("unknown") == 401);
    const bool is_admin = absl::StartsWith(operation.path, "/admin/"), is_metrics = operation.path == "/metrics";
    const bool is_any = for_any_key.contains(operation.path);
    CHECK((status("key-m") == 403) == !(is_any || is_metrics));
    CHECK((status("key-r") == 403) == !(is_any || is_admin));
    CHECK((status("key-a") == 403) == (is_admin || is_metrics));
  }
}

TEST_CASE("Isolation: another tenant's key finds nothing, whatever the route and the id", "[isolation]") {
  Tenants t;
  std::set<std::string> ids = {"x", "..", "%2e%2e%2fadmin", "'%20or%201=1", "%00", "%ff", std::string(300, 'a')};
  const std::set<std::string> invented = ids;
  // Tenant a leaves its text wherever something takes it, twice: ids of the first round may be named in the second.
  for (const Operation& operation : t.operations) {
    if (operation.method == "GET" || operation.has_argument()) continue;
    const JsonReply reply = t.As("key-a", operation, "", operation.Body(t.document, kOwnText));
    CollectIds(reply.json, ids);
  }
  CollectIds(t.As("key-a", {"GET", "/v1/agents", {}}, "", "").json, ids);
  CHECK(ids.contains("agent-of-a"));
  CHECK(ids.size() > invented.size() + 1);
  REQUIRE(PromptsOf(t.f, "a").find(kOwnText) != std::string::npos);
  for (const Operation& operation : t.operations) {
    const json schema = operation.Schema();
    for (const std::string& id : ids) {
      INFO(operation.method << " " << operation.path << " " << id);
      if (!operation.has_argument() && id != "x") continue;
      const JsonReply reply = t.As("key-b", operation, id, operation.Body(t.document, "mine"));
      CHECK(reply.body.find(kOwnText) == std::string::npos);
      if (operation.has_argument()) CHECK((reply.status == 403 || reply.status == 404 || reply.status == 400));
      for (const std::string& other : ids) {
        if (operation.has_argument() || invented.contains(other)) continue;
        CHECK(reply.body.find(other) == std::string::npos);
      }
    }
    // Bodies that name something of the other tenant's.
    if (!schema.is_object()) continue;
    for (const char* field :
         {"model", "previous_response_id", "conversation", "session_id", "session", "run_id", "response_id"}) {
      for (const std::string& id : ids) {
        if (invented.contains(id)) continue;
        json body = json::parse(operation.Body(t.document, "mine"), nullptr, false);
        if (!body.is_object()) continue;
        body[field] = id;
        CHECK(t.As("key-b", operation, id, body.dump()).body.find(kOwnText) == std::string::npos);
      }
    }
  }
  CHECK(PromptsOf(t.f, "b").find(kOwnText) == std::string::npos);
}

TEST_CASE("Secrets: no key is repeated, whatever the header it came in", "[isolation]") {
  const auto log_file = std::filesystem::temp_directory_path() / absl::StrCat("millrace_secrets_", getpid());
  std::string seen;
  {
    ApiFixture f({}, {}, {}, log_file);
    REQUIRE(f.keys
                .AddText("- {key: PLANTED-own, name: mine, tokens_per_minute: 100}\n"
                         "- {key: PLANTED-root, name: root, roles: [admin, metrics]}\n"
                         "- {key: PLANTED-old, name: old, expires: 1970-01-02}\n",
                         "keys")
                .ok());
    const std::string headers[] = {"Authorization: Bearer PLANTED-own\r\n",
                                   "x-api-key: PLANTED-root\r\n",
                                   "Authorization: Bearer PLANTED-old\r\n",
                                   "Authorization: Bearer PLANTED-wrong\r\n",
                                   "Authorization: PLANTED-bare\r\n",
                                   "Authorization: Basic PLANTED\r\n",
                                   "Authorization: Bearer PLANTED\x01\r\n",
                                   "Authorization: Bearer PLANTED\xff\r\n",
                                   "Authorization Bearer PLANTED\r\n",
                                   "Authorization: Bearer\r\n PLANTED-folded\r\n",
                                   "PLANTED-name: x\r\n",
                                   "x-api-key: PLANTED " + std::string(40'000, 'x') + "\r\n",
                                   "x-request-id: \x02\r\nx-api-key: PLANTED\r\n",
                                   "Authorization: Bearer PLANTED-own\r\nAuthorization: Bearer PLANTED-two\r\n",
                                   "Content-Length: PLANTED\r\nx-api-key: PLANTED-own\r\n",
                                   "Transfer-Encoding: PLANTED\r\n"};
    for (const std::string& header : headers) {
      for (const char* path : {"/v1/completions", "/v1/models", "/nope", "/metrics", "/admin/keys", "/admin/usage"}) {
        const bool is_post = std::string_view(path) == "/v1/completions";
        seen += f.Call(is_post ? "POST" : "GET", path, is_post ? R"({"prompt":"abcd"})" : "", header).head;
        seen += f.Call("POST", path, R"({"prompt":"abcd","max_tokens":500})", header).body;
      }
    }
    for (const char* path : {"/metrics", "/admin/keys", "/admin/usage"}) {
      seen += f.Call("GET", path, "", "x-api-key: PLANTED-root\r\n").body;
    }
  }
  std::stringstream log;
  log << std::ifstream(log_file).rdbuf();
  std::filesystem::remove(log_file);
  CHECK(log.str().find("\"key\":\"mine\"") != std::string::npos);
  CHECK(log.str().find("PLANTED") == std::string::npos);
  CHECK(seen.find("\"name\":\"mine\"") != std::string::npos);
  CHECK(seen.find("PLANTED") == std::string::npos);
}

}  // namespace
}  // namespace millrace
