// SPDX-License-Identifier: Apache-2.0
#include "server/responses/parse_tools.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/offered_tool.h"
#include "engine/text/template_json.h"
#include "engine/text/template_value.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxTools = 1024;

bool Contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A function as the templates know it. `ordered`: the same tool with its members in the client's order, which models
// read better than a sorted one.
TemplateValue ChatTool(const TemplateDict& ordered) {
  TemplateValue function = TemplateValue::Dict();
  for (const char* name : {"name", "description", "parameters"}) {
    const TemplateValue* member = ordered.Find(name);
    if (member != nullptr && !member->is_none()) function.as_dict().Set(name, *member);
  }
  return OfferFunction(std::move(function));
}

class ToolsReader {
 public:
  ToolsReader(JsonFields& fields, ResponsesRequest& request) : fields_(fields), request_(request) {}

  // `ordered`: the list once more.
  void ReadTools(const json& tools, const TemplateValue& ordered) {
    if (tools.size() > kMaxTools) return fields_.Fail("tools", absl::StrCat("has more than ", kMaxTools, " items"));
    for (size_t i = 0; i < tools.size() && fields_.status().ok(); ++i) {
      JsonFields tool(tools[i], absl::StrCat("tools[", i, "]."));
      std::string type;
      if (!tools[i].is_object()) return fields_.Fail("tools", "must hold objects", kInvalidType);
      tool.Read("type", type);
      if (type.empty()) tool.Fail("type", "is required", kMissingParameter);
      if (type == "function") ReadFunction(tool, ordered.as_list().items[i]);
      if (type == "mcp") ReadServer(tool);
      if (type == "code_interpreter") request_.has_code_interpreter = true;
      fields_.Adopt(tool);
      echo_.push_back(Echo(tools[i], type));
    }
  }

  void ReadChoice(const json& choice) {
    if (choice.is_string()) return ReadMode(choice.get<std::string>(), "tool_choice");
    if (!choice.is_object()) return fields_.Fail("tool_choice", "must be a string or an object", kInvalidType);
    JsonFields inner(choice, "tool_choice.");
    std::string type;
    inner.Read("type", type);
    if (type == "function") {
      std::string name;
      inner.Read("name", name);
      if (!Contains(names_, name)) inner.Fail("name", "is not among the 'tools'");
      request_.must_call = request_.chat.calls_once = true;
      request_.chat.required_tools = {name};
    } else if (type == "allowed_tools") {
      ReadAllowed(inner);
    } else if (type == "mcp") {
      ReadServerChoice(inner);
    } else if (type == "code_interpreter" && request_.has_code_interpreter) {
      KeepOnly({}, {}, true);
      request_.must_call = true;
    } else {
      inner.Fail("type", "is not supported, or names a tool that 'tools' does not have", kUnsupportedValue);
    }
    fields_.Adopt(inner);
  }

  // Gives the conversation what is left of the functions.
  ToolsEcho Finish(const json* choice) {
    ToolsEcho echo;
    echo.tools = json(echo_).dump(-1, ' ', false, json::error_handler_t::replace);
    if (choice != nullptr) echo.tool_choice = choice->dump(-1, ' ', false, json::error_handler_t::replace);
    if (!functions_.empty()) request_.chat.conversation.tools = TemplateValue::List(std::move(functions_));
    return echo;
  }

 private:
  void ReadFunction(JsonFields& tool, const TemplateValue& ordered) {
    std::string name, description;
    tool.Read("name", name);
    tool.Read("description", description);
    if (name.empty()) tool.Fail("name", "is required", kMissingParameter);
    if (Contains(names_, name)) tool.Fail("name", "is taken by another tool");
    const json* parameters = tool.Find("parameters");
    if (parameters != nullptr && !parameters->is_object()) {
      tool.Fail("parameters", "must be an object", kInvalidType);
    }
    if (!tool.status().ok()) return;
    names_.push_back(std::move(name));
    functions_.push_back(ChatTool(ordered.as_dict()));
  }

  // Tools of a server that we know by its label. Others' addresses are not ours to call: whoever may send requests
  // could otherwise make us talk to anyone.
  void ReadServer(JsonFields& tool) {
    ToolServerChoice server;
    tool.Read("server_label", server.label);
    if (server.label.empty()) tool.Fail("server_label", "is required", kMissingParameter);
    for (const char* name : {"server_url", "connector_id", "tunnel_id"}) {
      tool.RefuseUnlessNull(name, "is not accepted: only tool servers of this server's own configuration are used");
    }
    if (const json* allowed = tool.Find("allowed_tools"); allowed != nullptr && allowed->is_object()) {
      JsonFields filter(*allowed, tool.path() + "allowed_tools.");
      if (filter.Find("tool_names") != nullptr) {
        filter.ReadStrings("tool_names", kMaxTools, server.allowed.emplace());
      }
      tool.Adopt(filter);
    } else if (allowed != nullptr) {
      tool.ReadStrings("allowed_tools", kMaxTools, server.allowed.emplace());
    }
    const json* approval = tool.Find("require_approval");
    if (approval != nullptr && *approval != "never" && !(approval->is_object() && !approval->contains("always"))) {
      tool.Fail("require_approval", "can only be 'never': approvals are not supported yet", kUnsupportedValue);
    }
    request_.tool_servers.push_back(std::move(server));
  }

  void ReadMode(const std::string& mode, const char* name) {
    if (mode == "none") {
      request_.forbids_calls = true;
      KeepOnly({}, {}, false);
    } else if (mode == "required") {
      if (functions_.empty() && request_.tool_servers.empty() && !request_.has_code_interpreter) {
        return fields_.Fail(name, "needs 'tools'");
      }
      request_.must_call = true;
    } else if (mode != "auto") {
      fields_.Fail(name, "must be 'none', 'auto', 'required' or an object");
    }
  }

  // A hard constraint: what is not allowed is not offered.
  void ReadAllowed(JsonFields& inner) {
    std::string mode = "auto";
    inner.Read("mode", mode);
    const json* allowed = inner.Find("tools");
    if (allowed == nullptr || !allowed->is_array()) return inner.Fail("tools", "must be a list of tools", kInvalidType);
    std::vector<std::string> functions;
    std::vector<ToolServerChoice> servers;
    bool has_code_interpreter = false;
    for (const json& tool : *allowed) {
      JsonFields fields(tool, "tool_choice.tools.");
      std::string type, name, label;
      fields.Read("type", type);
      fields.Read("name", name);
      fields.Read("server_label", label);
      inner.Adopt(fields);
      if (type == "function") functions.push_back(name);
      if (type == "mcp") servers.push_back(Narrow(label, name));
      if (type == "code_interpreter") has_code_interpreter = request_.has_code_interpreter;
      if (type == "function" && !Contains(names_, name)) inner.Fail("tools", "names a function that is not offered");
    }
    if (mode != "auto" && mode != "required") inner.Fail("mode", "must be 'auto' or 'required'");
    if (!inner.status().ok()) return;
    KeepOnly(functions, std::move(servers), has_code_interpreter);
    ReadMode(mode, "tool_choice");
  }

  void ReadServerChoice(JsonFields& inner) {
    std::string label, name;
    inner.Read("server_label", label);
    inner.Read("name", name);
    const auto is_it = [&label](const ToolServerChoice& server) { return server.label == label; };
    if (std::none_of(request_.tool_servers.begin(), request_.tool_servers.end(), is_it)) {
      return inner.Fail("server_label", "is not among the 'tools'");
    }
    KeepOnly({}, {Narrow(label, name)}, false);
    request_.must_call = true;
  }

  // What a server was offered with, and of that only the named tool if one is named.
  ToolServerChoice Narrow(const std::string& label, const std::string& name) const {
    ToolServerChoice narrowed{.label = label, .allowed = std::vector<std::string>()};
    for (const ToolServerChoice& server : request_.tool_servers) {
      if (server.label != label) continue;
      if (name.empty()) return server;
      if (!server.allowed || Contains(*server.allowed, name)) narrowed.allowed = {name};
    }
    return narrowed;
  }

  void KeepOnly(const std::vector<std::string>& functions, std::vector<ToolServerChoice> servers, bool code) {
    std::vector<TemplateValue> kept;
    for (size_t i = 0; i < functions_.size(); ++i) {
      if (Contains(functions, names_[i])) kept.push_back(functions_[i]);
    }
    std::erase_if(names_, [&functions](const std::string& name) { return !Contains(functions, name); });
    functions_ = std::move(kept);
    request_.tool_servers = std::move(servers);
    request_.has_code_interpreter = code;
  }

  // As the client sent it, without its secrets, and with what OpenAI's object always has.
  static json Echo(json tool, const std::string& type) {
    for (const char* secret : {"authorization", "headers"}) tool.erase(secret);
    if (type != "function") return tool;
    for (const char* name : {"description", "parameters"}) {
      if (!tool.contains(name)) tool[name] = nullptr;
    }
    if (!tool.contains("strict") || tool["strict"].is_null()) tool["strict"] = true;
    return tool;
  }

  JsonFields& fields_;
  ResponsesRequest& request_;
  std::vector<std::string> names_;        // of the functions, in order
  std::vector<TemplateValue> functions_;  // for the template
  std::vector<json> echo_;
};

}  // namespace

ToolsEcho ReadResponsesTools(JsonFields& fields, std::string_view body, ResponsesRequest& request) {
  ToolsReader reader(fields, request);
  const json* tools = fields.Find("tools");
  if (tools != nullptr && !tools->is_array()) {
    fields.Fail("tools", absl::StrCat("must be a list, not ", tools->type_name()), kInvalidType);
    return {};
  }
  if (tools != nullptr && !tools->empty()) {
    const auto ordered = ParseJsonValue(body);
    if (!ordered.ok()) {
      fields.Fail("tools", std::string(ordered.status().message()));
      return {};
    }
    reader.ReadTools(*tools, *ordered->as_dict().Find("tools"));
  }
  const json* choice = fields.Find("tool_choice");
  if (choice != nullptr && fields.status().ok()) reader.ReadChoice(*choice);
  bool may_repeat = true;
  fields.Read("parallel_tool_calls", may_repeat);
  if (!may_repeat) request.chat.calls_once = true;
  return reader.Finish(choice);
}

}  // namespace millrace
