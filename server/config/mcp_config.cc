// SPDX-License-Identifier: Apache-2.0
#include "server/config/mcp_config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "server/agents/tool_set.h"

namespace millrace {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxServers = 64;
constexpr size_t kMaxNameBytes = 32;
constexpr double kMaxSeconds = 86400;
// What programs cannot do without, and no more: the rest of our environment may hold secrets.
constexpr const char* kInherited[] = {"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER"};

bool IsName(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  // Two underscores part a server's name from its tool's.
  return !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), is_allowed) &&
         name.find("__") == name.npos && name.back() != '_';
}

// Reads one server's map; the first fault stays.
class ServerReader {
 public:
  ServerReader(const std::string& path, const Environment& environment) : path_(path), environment_(environment) {}

  McpServerOptions Read(const YAML::Node& name, const YAML::Node& fields) {
    McpServerOptions server{.name = name.as<std::string>()};
    if (!IsName(server.name)) {
      Fail(name, absl::StrCat("a tool server's name has 1 to ", kMaxNameBytes,
                              " of A-Z a-z 0-9 - and single _, the last not at its end"));
    }
    if (server.name == kOwnToolServer) Fail(name, absl::StrCat("'", kOwnToolServer, "' is this server's own name"));
    if (!fields.IsMap()) Fail(name, absl::StrCat("'", server.name, "' needs a map with 'command'"));
    std::map<std::string, std::string> env;
    for (const char* inherited : kInherited) {
      if (const char* value = environment_(inherited); value != nullptr) env[inherited] = value;
    }
    for (const auto& field : fields.IsMap() ? fields : YAML::Node(YAML::NodeType::Map)) {
      if (!status_.ok()) break;
      if (!ReadProgram(field.first, field.second, server, env) && !ReadRule(field.first, field.second, server)) {
        Fail(field.first, absl::StrCat("a tool server has no field '", field.first.as<std::string>(), "'"));
      }
    }
    if (status_.ok() && server.command.empty()) Fail(name, absl::StrCat("'", server.name, "' needs 'command'"));
    server.env.assign(env.begin(), env.end());
    return server;
  }

  const absl::Status& status() const { return status_; }

 private:
  void Fail(const YAML::Node& node, std::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(path_, ":", node.Mark().line + 1, ": ", std::string(what)));
  }

  // False: the field is none of these.
  bool ReadProgram(const YAML::Node& key, const YAML::Node& value, McpServerOptions& server,
                   std::map<std::string, std::string>& env) {
    const std::string field = key.as<std::string>();
    if (field == "command") {
      server.command = Expand(value);
    } else if (field == "args") {
      if (!value.IsSequence()) Fail(value, "'args' is a list");
      for (const YAML::Node& item : value) server.args.push_back(Expand(item));
    } else if (field == "env") {
      if (!value.IsMap() && !value.IsNull()) Fail(value, "'env' is a map");
      for (const auto& variable : value) {
        const std::string name = variable.first.as<std::string>();
        if (name.empty() || name.find('=') != name.npos) Fail(variable.first, "no name of a variable");
        env[name] = Expand(variable.second);
        server.secrets.push_back(env[name]);
      }
    } else if (field == "cwd") {
      server.folder = value.as<std::string>();
    } else if (field == "type" || field == "transport") {
      if (value.as<std::string>() != "stdio") Fail(value, "only 'stdio' is supported");
    } else if (field == "url" || field == "serverUrl" || field == "headers") {
      Fail(key, "tool servers behind a URL are not supported: only those that are started with 'command'");
    } else {
      return false;
    }
    return true;
  }

  bool ReadRule(const YAML::Node& key, const YAML::Node& value, McpServerOptions& server) {
    const std::string field = key.as<std::string>();
    if (field == "allowed_tools" || field == "allowedTools") {
      if (!value.IsSequence()) Fail(value, "'allowed_tools' is a list");
      server.allowed_tools.emplace();
      for (const YAML::Node& item : value) server.allowed_tools->push_back(item.as<std::string>());
    } else if (field == "startup_timeout") {
      server.start_time = Seconds(value);
    } else if (field == "tool_timeout") {
      server.tool_time = Seconds(value);
    } else if (field == "required") {
      server.is_required = value.as<bool>();
    } else if (field == "trust_annotations") {
      server.trusts_annotations = value.as<bool>();
    } else {
      return false;
    }
    return true;
  }

  absl::Duration Seconds(const YAML::Node& value) {
    const auto seconds = value.as<double>();
    if (!(seconds > 0 && seconds <= kMaxSeconds)) Fail(value, absl::StrCat("seconds between 0 and ", kMaxSeconds));
    return absl::Seconds(seconds);
  }

  // ${NAME} and ${NAME:-default}.
  std::string Expand(const YAML::Node& node) {
    const auto text = node.as<std::string>();
    std::string out;
    size_t at = 0;
    while (at < text.size()) {
      const size_t begin = text.find("${", at);
      out.append(text, at, begin == text.npos ? text.npos : begin - at);
      if (begin == text.npos) break;
      const size_t end = text.find('}', begin);
      if (end == text.npos) {
        Fail(node, "'${' without '}'");
        break;
      }
      const std::string inner = text.substr(begin + 2, end - begin - 2);
      const size_t colon = inner.find(":-");
      const std::string name = inner.substr(0, colon);
      const char* value = environment_(name.c_str());
      if (value == nullptr && colon == inner.npos) Fail(node, absl::StrCat("the variable ", name, " is not set"));
      out += value != nullptr ? value : colon == inner.npos ? "" : inner.substr(colon + 2);
      at = end + 1;
    }
    if (out.find('\0') != out.npos) Fail(node, "a zero byte");
    return out;
  }

  const std::string& path_;
  const Environment& environment_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<McpServerOptions>> ParseMcpConfig(std::string_view text, const std::string& path,
                                                             const Environment& environment) {
  std::vector<McpServerOptions> servers;
  const auto fault = [&path](int line, std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", line + 1, ": ", std::string(what)));
  };
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (!root.IsMap()) return fault(0, "expected a map with 'mcpServers'");
    YAML::Node list;
    for (const auto& field : root) {
      const std::string key = field.first.as<std::string>();
      if (key != "mcpServers" && key != "mcp_servers" && key != "mcp-servers") continue;
      if (list.IsMap()) return fault(field.first.Mark().line, absl::StrCat("'", key, "' again"));
      if (!field.second.IsMap()) return fault(field.first.Mark().line, absl::StrCat("'", key, "' is a map"));
      list.reset(field.second);
    }
    if (!list.IsMap()) return fault(0, "there are no 'mcpServers'");
    if (list.size() > kMaxServers) return fault(0, absl::StrCat("more than ", kMaxServers, " tool servers"));
    for (const auto& server : list) {
      ServerReader reader(path, environment);
      servers.push_back(reader.Read(server.first, server.second));
      if (!reader.status().ok()) return reader.status();
    }
  } catch (const YAML::Exception& error) {
    return fault(error.mark.line, error.msg);
  }
  return servers;
}

absl::StatusOr<std::vector<McpServerOptions>> ReadMcpConfig(const std::vector<std::string>& paths,
                                                            const Environment& environment) {
  std::vector<McpServerOptions> all;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return absl::NotFoundError(absl::StrCat("--mcp-config: cannot read ", path));
    std::string text(kMaxFileBytes + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
    if (text.size() > kMaxFileBytes) return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 1 MiB"));
    absl::StatusOr<std::vector<McpServerOptions>> servers = ParseMcpConfig(text, path, environment);
    if (!servers.ok()) return servers.status();
    for (McpServerOptions& server : *servers) {
      const auto is_same = [&server](const McpServerOptions& other) { return other.name == server.name; };
      if (std::any_of(all.begin(), all.end(), is_same)) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": the tool server '", server.name, "' again"));
      }
      all.push_back(std::move(server));
    }
  }
  return all;
}

}  // namespace millrace
