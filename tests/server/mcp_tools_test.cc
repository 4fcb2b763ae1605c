// SPDX-License-Identifier: Apache-2.0
// Tool servers: from the configuration to the tools of a request.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/agents/tool_set.h"
#include "server/config/config_file.h"
#include "server/config/mcp_config.h"
#include "server/responses/response_events.h"
#include "server/responses/select_tools.h"
#include "tests/agent/scripted_model.h"

namespace millrace {
namespace {

using nlohmann::json;

const char* Variable(const char* name) {
  const std::string_view wanted(name);
  return wanted == "PATH" ? "/usr/bin:/bin" : wanted == "HOME" ? "/home/me" : wanted == "KEY" ? "k3y-k3y" : nullptr;
}

absl::StatusOr<std::vector<McpServerOptions>> Parse(std::string_view text) {
  return ParseMcpConfig(text, "mcp.json", Variable);
}

std::string FaultOf(std::string_view text) { return std::string(Parse(text).status().message()); }

TEST_CASE("McpConfig: the JSON that other programs keep", "[mcp]") {
  const auto servers = Parse(R"({"mcpServers": {
    "files": {"command": "npx", "args": ["-y", "server-files", "${HOME}/a\u00e9\/b"], "env": {"TOKEN": "${KEY}", "N": "${NONE:-1}"}},
    "db-2": {"type": "stdio", "command": "/opt/db"}}, "other": 1})");
  REQUIRE(servers.ok());
  REQUIRE(servers->size() == 2);
  const McpServerOptions& files = (*servers)[0];
  CHECK(files.name == "files");
  CHECK(files.command == "npx");
  CHECK(files.args == std::vector<std::string>{"-y", "server-files", "/home/me/a\u00e9/b"});
  const std::vector<std::pair<std::string, std::string>> env = {
      {"HOME", "/home/me"}, {"N", "1"}, {"PATH", "/usr/bin:/bin"}, {"TOKEN", "k3y-k3y"}};
  CHECK(files.env == env);
  CHECK(files.secrets == std::vector<std::string>{"k3y-k3y", "1"});
  CHECK_FALSE(files.allowed_tools.has_value());
  CHECK(files.is_required);
  CHECK_FALSE(files.trusts_annotations);
  CHECK((*servers)[1].args.empty());
}

TEST_CASE("McpConfig: YAML, and the fields of our own", "[mcp]") {
  const auto servers = Parse(
      "port: 1\nmcp_servers:\n  a:\n    command: a\n    cwd: /tmp\n    allowed_tools: [x, y]\n    startup_timeout: "
      "1.5\n"
      "    tool_timeout: 60\n    required: false\n    trust_annotations: true\n");
  REQUIRE(servers.ok());
  const McpServerOptions& a = (*servers)[0];
  CHECK(a.folder == "/tmp");
  CHECK(*a.allowed_tools == std::vector<std::string>{"x", "y"});
  CHECK(a.start_time == absl::Milliseconds(1500));
  CHECK(a.tool_time == absl::Minutes(1));
  CHECK_FALSE(a.is_required);
  CHECK(a.trusts_annotations);
}

TEST_CASE("McpConfig: faults name file and line", "[mcp]") {
  CHECK(FaultOf("{").starts_with("mcp.json:"));
  CHECK(FaultOf("[]") == "mcp.json:1: expected a map with 'mcpServers'");
  CHECK(FaultOf("{}") == "mcp.json:1: there are no 'mcpServers'");
  CHECK(FaultOf("mcpServers:\n  a:\n    comand: x") == "mcp.json:3: a tool server has no field 'comand'");
  CHECK(FaultOf("mcpServers:\n  a: {}") == "mcp.json:2: 'a' needs 'command'");
  CHECK(FaultOf("mcpServers: {a: {command: x, env: {A: \"${NOT}\"}}}") == "mcp.json:1: the variable NOT is not set");
  CHECK(absl::StrContains(FaultOf("mcpServers: {a: {url: \"http://x\"}}"), "behind a URL"));
  CHECK(absl::StrContains(FaultOf("mcpServers: {a: {command: x, type: sse}}"), "only 'stdio'"));
  CHECK(absl::StrContains(FaultOf("mcpServers: {a: {command: x, startup_timeout: 0}}"), "seconds"));
  CHECK(absl::StrContains(FaultOf("mcpServers: {a: {command: x, args: y}}"), "'args' is a list"));
  CHECK_FALSE(FaultOf("mcpServers: {a: {command: [x]}}").empty());
  for (const char* name : {"a b", "a__b", "a_", "millrace", "f\u0456les", "abcdefghijklmnopqrstuvwxyz0123456"}) {
    INFO(name);
    CHECK_FALSE(FaultOf(absl::StrCat("mcpServers: {\"", name, "\": {command: x}}")).empty());
  }
}

TEST_CASE("ConfigFile: tool servers within the flags' file are read from there", "[mcp]") {
  const auto entries = ParseConfig("port: 1\nmcp_servers: {a: {command: x}}\n", "conf.yaml");
  REQUIRE(entries.ok());
  CHECK((*entries)[1].name == "mcp-config");
  CHECK((*entries)[1].values == std::vector<std::string>{"conf.yaml"});
  CHECK_FALSE(ParseConfig("mcp_servers: {a: {}}\nmcp_config: x\n", "c").ok());
  CHECK_FALSE(ParseConfig("mcp_config: x\nmcp_servers: {a: {}}\n", "c").ok());
}

// A server in a shell: enough of the protocol of 2026-07-28 for a list and a call.
McpServerOptions Shell(std::string name, const std::string& tools) {
  const std::string script = absl::StrCat(R"(while read -r line; do id=${line##*'"id":'}; id=${id%\}}
    case $line in
      *'"server/discover"'*) r='"supportedVersions":["2026-07-28"],"capabilities":{}';;
      *'"tools/list"'*) r=')",
                                          tools, R"(';;
      *'"tools/call"'*) r='"content":[{"type":"text","text":"'$WORD'"}]';;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":{%s}}\n' "$id" "$r"
  done)");
  return {.name = std::move(name),
          .command = "sh",
          .args = {"-c", script},
          .env = {{"PATH", "/usr/bin:/bin"}, {"WORD", "hello"}}};
}
constexpr char kTwoTools[] =
    R"("tools":[{"name":"say.it","description":"Says.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},{"name":"b","inputSchema":{}}])";

ToolOptions With(std::vector<McpServerOptions> servers) {
  return {.enabled = {"clock"}, .mcp_servers = std::move(servers)};
}

TEST_CASE("ToolSet: tools of servers stand beside ours, each under a name of its own", "[mcp]") {
  McpServerOptions other = Shell("one", kTwoTools);
  other.env[1].second = "other";  // a value of one server's is not the other's
  const auto set = ToolSet::Create(With({other, Shell("two", kTwoTools)}));
  INFO(set.status().ToString());
  REQUIRE(set.ok());
  REQUIRE(set->all().size() == 5);
  CHECK(set->all()[0]->name() == "clock");
  const ServedTool* served = set->FindServed("two__say_it");
  REQUIRE(served != nullptr);
  CHECK(served->server == "two");
  CHECK(served->name == "say.it");
  CHECK(served->tool->Call("{}", absl::Now() + absl::Seconds(60), Cancellation()).text == "hello");
  CHECK(set->Find("one__b")->Call("{}", absl::Now() + absl::Seconds(60), Cancellation()).text == "other");
  CHECK(set->FindServed("clock")->server == kOwnToolServer);
  CHECK(set->Find("say.it") == nullptr);
}

TEST_CASE("ToolSet: names that would be one are refused at the start", "[mcp]") {
  constexpr char kAlike[] = R"("tools":[{"name":"a.b","inputSchema":{}},{"name":"a_b","inputSchema":{}}])";
  const auto set = ToolSet::Create(With({Shell("one", kAlike)}));
  CHECK(set.status().message() == "two tools would be called 'one__a_b': 'a.b' of one and 'a_b' of one");
}

TEST_CASE("ToolSet: a server that does not come up is named; one that is not required is left out", "[mcp]") {
  McpServerOptions broken{.name = "broken", .command = "no-such-program", .env = {{"PATH", "/usr/bin"}}};
  CHECK(ToolSet::Create(With({broken})).status().message() ==
        "the tool server 'broken' did not come up: there is no program 'no-such-program' on its PATH");
  broken.is_required = false;
  McpServerOptions loud = Shell("loud", kTwoTools);
  loud.args[1] = "echo the token is $TOKEN >&2; exit 1";
  loud.env.emplace_back("TOKEN", "s3cret-s3cret");
  loud.secrets = {"s3cret-s3cret"};
  loud.is_required = false;
  absl::Mutex mu;
  std::string logged;
  const auto set = ToolSet::Create(With({broken, loud, Shell("one", kTwoTools)}),
                                   [&](std::string_view server, std::string_view event, std::string_view text) {
                                     absl::MutexLock lock(&mu);
                                     absl::StrAppend(&logged, std::string(server), " ", std::string(event), ": ",
                                                     std::string(text), "\n");
                                   });
  REQUIRE(set.ok());
  CHECK(set->all().size() == 3);
  CHECK(absl::StrContains(logged, "broken did not come up"));
  CHECK(absl::StrContains(logged, "loud did not come up; its tools are left out: the tool server has ended"));
  CHECK_FALSE(absl::StrContains(logged, "s3cret"));
}

std::shared_ptr<Tool> Named(std::string name) {
  return std::make_shared<ScriptedTool>(
      std::move(name), [](std::string_view, absl::Time, const Cancellation&) -> ToolResult { return {.text = "ok"}; });
}

ToolSet SomeTools() {
  ToolSet set;
  for (const auto& [server, name] : std::vector<std::pair<std::string, std::string>>{
           {kOwnToolServer, "clock"}, {"shop", "buy"}, {"shop", "sell"}, {"bank", "buy"}}) {
    const std::string full = server == kOwnToolServer ? name : absl::StrCat(server, "__", name);
    REQUIRE(
        set.Add({.server = server, .name = name, .tool = Named(full), .annotations = R"({"readOnlyHint":true})"}).ok());
  }
  return set;
}

std::vector<std::string> NamesOf(const SelectedTools& selected) {
  std::vector<std::string> names;
  for (const auto& tool : selected.tools) names.emplace_back(tool->name());
  return names;
}

TEST_CASE("SelectTools: a label gives its own server's tools and no other's", "[mcp]") {
  const ToolSet set = SomeTools();
  const auto own = SelectTools(set, {.tool_servers = {{.label = "millrace"}}});
  CHECK(NamesOf(*own) == std::vector<std::string>{"clock"});
  CHECK(own->listings.empty());
  const auto shop = SelectTools(set, {.tool_servers = {{.label = "shop"}}});
  CHECK(NamesOf(*shop) == std::vector<std::string>{"shop__buy", "shop__sell"});
  CHECK(shop->looks.at("shop__sell").name == "sell");
  CHECK(shop->looks.at("shop__sell").label == "shop");
  const auto both = SelectTools(set, {.tool_servers = {{.label = "bank", .allowed = std::vector<std::string>{"buy"}},
                                                       {.label = "shop", .allowed = std::vector<std::string>{"buy"}}}});
  CHECK(NamesOf(*both) == std::vector<std::string>{"bank__buy", "shop__buy"});
  REQUIRE(both->listings.size() == 2);
  const json listed = json::parse(both->listings[1].tools);
  CHECK(listed ==
        json::parse(R"([{"name":"buy","description":"does what the test says","input_schema":)" +
                    std::string(set.Find("shop__buy")->parameters()) + R"(,"annotations":{"readOnlyHint":true}}])"));
  const auto again = SelectTools(set, {.tool_servers = {{.label = "shop"}}, .listed_servers = {"shop"}});
  CHECK(again->listings.empty());
  for (const ToolServerChoice& wrong :
       std::vector<ToolServerChoice>{{.label = "none"},
                                     {.label = "bank", .allowed = std::vector<std::string>{"sell"}},
                                     {.label = "shop", .allowed = std::vector<std::string>{"shop__buy"}},
                                     {.label = "millrace", .allowed = std::vector<std::string>{"buy"}}}) {
    CHECK(absl::IsInvalidArgument(SelectTools(set, {.tool_servers = {wrong}}).status()));
  }
}

TEST_CASE("SelectTools: an agent's tools are shown as their servers'", "[mcp]") {
  const ToolSet set = SomeTools();
  const Agent agent{.name = "a", .tools = {set.Find("shop__sell"), set.Find("clock")}};
  const auto selected = SelectTools(set, {}, &agent);
  CHECK(NamesOf(*selected) == std::vector<std::string>{"shop__sell", "clock"});
  CHECK(selected->looks.at("shop__sell").label == "shop");
  CHECK(selected->looks.at("shop__sell").name == "sell");
  CHECK(selected->looks.at("clock").label == kOwnToolServer);
  CHECK(NamesOf(*SelectTools(set, {.forbids_calls = true}, &agent)).empty());
  CHECK_FALSE(SelectTools(set, {.tool_servers = {{.label = "shop"}}}, &agent).ok());
}

TEST_CASE("Responses: what a server offers is shown before everything else, in whole answers and streams", "[mcp]") {
  for (const bool is_stream : {false, true}) {
    std::vector<json> events;
    ResponseEventsArgs args{.id = "resp_1", .listings = {{.label = "shop", .tools = R"([{"name":"buy"}])"}}};
    args.look = [](std::string_view) { return CallLook{.label = "shop", .name = "buy"}; };
    if (is_stream) {
      args.stream = [&events](std::string_view bytes) {
        const size_t data = bytes.find("data: ");
        if (bytes.find('{') != bytes.npos) events.push_back(json::parse(bytes.substr(data + 6)));
      };
    }
    ResponseEvents responses(std::move(args));
    if (is_stream) responses.Begin();
    CHECK(responses.items().size() == (is_stream ? 1 : 0));
    responses.Handle(CallMade{.call = 0, .tool_call = {.id = "c", .name = "shop__buy", .arguments = "{}"}});
    responses.Handle(CallAnswered{.call = 0, .id = "c", .result = {.text = "ok"}});
    responses.Handle(RunEnded{});
    responses.Finish();
    const json output = json::parse(responses.Object())["output"];
    REQUIRE(output.size() == 2);
    CHECK(output[0]["type"] == "mcp_list_tools");
    CHECK(output[0]["server_label"] == "shop");
    CHECK(output[0]["tools"][0]["name"] == "buy");
    CHECK(output[1]["name"] == "buy");
    CHECK(output[1]["server_label"] == "shop");
    if (!is_stream) continue;
    std::vector<std::string> types;
    for (const json& event : events) types.push_back(event["type"]);
    REQUIRE(types.size() > 6);
    CHECK(std::vector<std::string>(types.begin() + 2, types.begin() + 6) ==
          std::vector<std::string>{"response.output_item.added", "response.mcp_list_tools.in_progress",
                                   "response.mcp_list_tools.completed", "response.output_item.done"});
  }
}

TEST_CASE("Responses: a listing alone is no answer", "[mcp]") {
  ResponseEvents responses({.id = "resp_1", .listings = {{.label = "shop", .tools = "[]"}}});
  responses.Begin();
  responses.Handle(RunEnded{});
  const json output = json::parse(responses.Object())["output"];
  REQUIRE(output.size() == 2);
  CHECK(output[1]["type"] == "message");
}

TEST_CASE("Responses: a server's call comes back under the name that the model used", "[mcp]") {
  const auto request = ParseResponses(
      R"({"model":"m","input":[{"role":"user","content":"hi"},{"type":"mcp_list_tools","id":"l","server_label":"shop","tools":[]},
          {"type":"mcp_call","id":"1","server_label":"shop","name":"buy","arguments":"{}","output":"ok"},
          {"type":"mcp_call","id":"2","server_label":"millrace","name":"clock","arguments":"{}","output":"noon"}]})",
      {});
  REQUIRE(request.ok());
  std::vector<std::string> names;
  for (const ChatMessage& message : request->chat.conversation.messages) {
    for (const ChatToolCall& call : message.tool_calls) names.push_back(call.name);
  }
  CHECK(names == std::vector<std::string>{"shop__buy", "clock"});
  CHECK(request->listed_servers == std::set<std::string>{"shop"});
}

}  // namespace
}  // namespace millrace
