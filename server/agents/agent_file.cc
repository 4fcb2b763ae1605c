// SPDX-License-Identifier: Apache-2.0
#include "server/agents/agent_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/text/utf8.h"
#include "server/config/config_file.h"

namespace millrace {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;
constexpr size_t kMaxAgents = 256;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxDescriptionBytes = 1024;
constexpr size_t kMaxInstructionsBytes = 64 << 10;  // an alias may repeat them in every agent
constexpr size_t kMaxTools = 128;
constexpr size_t kMaxTenants = 1024;
constexpr int64_t kMaxTokens = int64_t{1} << 40;
constexpr absl::Duration kMaxTime = absl::Hours(24);
constexpr absl::Duration kMaxToolTime = absl::Hours(1);

using Field = std::function<absl::Status(const YAML::Node&)>;
using Fields = std::map<std::string, Field>;

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

// With the line; the path is put before it where the file is known.
absl::Status Fault(const YAML::Node& node, std::string_view what) {
  // A document without any node has no place.
  return absl::InvalidArgumentError(absl::StrCat(std::max(1, node.Mark().line + 1), ": ", Absl(what)));
}

absl::Status ReadText(const YAML::Node& node, const std::string& name, size_t max_bytes, std::string& out) {
  if (!node.IsScalar()) return Fault(node, absl::StrCat(name, " must be a text"));
  out = node.Scalar();
  if (out.size() > max_bytes) return Fault(node, absl::StrCat(name, " is longer than ", max_bytes, " bytes"));
  if (!IsValidUtf8(out)) return Fault(node, absl::StrCat(name, " is not UTF-8"));
  return absl::OkStatus();
}

template <typename Integer>
Field IntegerField(const std::string& name, int64_t low, int64_t high, Integer& out) {
  return [=, &out](const YAML::Node& node) -> absl::Status {
    int64_t value = 0;
    if (!node.IsScalar() || !YAML::convert<int64_t>::decode(node, value) || value < low || value > high) {
      return Fault(node, absl::StrCat(name, " must be a whole number from ", low, " to ", high));
    }
    out = static_cast<typename std::remove_reference<decltype(out)>::type>(value);
    return absl::OkStatus();
  };
}

Field NumberField(const std::string& name, double low, double high, std::optional<float>& out) {
  return [=, &out](const YAML::Node& node) -> absl::Status {
    double value = 0;
    // Also false for not-a-number.
    const bool is_within =
        node.IsScalar() && YAML::convert<double>::decode(node, value) && value >= low && value <= high;
    if (!is_within) return Fault(node, absl::StrCat(name, " must be a number from ", low, " to ", high));
    out = static_cast<float>(value);
    return absl::OkStatus();
  };
}

Field DurationField(const std::string& name, absl::Duration most, absl::Duration& out) {
  return [=, &out](const YAML::Node& node) -> absl::Status {
    if (!node.IsScalar() || !absl::ParseDuration(node.Scalar(), &out) || out <= absl::ZeroDuration() || out > most) {
      return Fault(node, absl::StrCat(name, " must be a time such as 30s or 5m, at most ", absl::FormatDuration(most)));
    }
    return absl::OkStatus();
  };
}

// A map with these fields and no others, none twice.
absl::Status ReadMap(const YAML::Node& node, const std::string& what, const Fields& fields) {
  if (!node.IsMap()) return Fault(node, absl::StrCat(what, " must be a map"));
  std::vector<std::string> seen;
  for (const auto& member : node) {
    if (!member.first.IsScalar()) return Fault(member.first, absl::StrCat(what, " has a field without a name"));
    const std::string name = member.first.Scalar();
    const auto field = fields.find(name);
    if (field == fields.end()) {
      std::vector<std::string> known;
      for (const auto& [each, read] : fields) known.push_back(each);
      const std::string nearest = NearestName(name.substr(0, kMaxNameBytes), known);
      return Fault(member.first, absl::StrCat("unknown field '", name.substr(0, kMaxNameBytes), "'",
                                              nearest.empty() ? "" : absl::StrCat(" (did you mean '", nearest, "'?)")));
    }
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      return Fault(member.first, absl::StrCat("'", name, "' again"));
    }
    seen.push_back(name);
    if (absl::Status status = field->second(member.second); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// A list of names, each read by `add`, none twice.
absl::Status ReadNames(const YAML::Node& node, const std::string& what, size_t max_names,
                       const std::function<absl::Status(const YAML::Node&, const std::string&)>& add) {
  if (!node.IsSequence()) return Fault(node, absl::StrCat(what, " must be a list of names"));
  if (node.size() > max_names) return Fault(node, absl::StrCat(what, " has more than ", max_names, " names"));
  std::vector<std::string> seen;
  for (const YAML::Node& item : node) {
    std::string name;
    if (absl::Status status = ReadText(item, what, kMaxNameBytes * 4, name); !status.ok()) return status;
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      return Fault(item, absl::StrCat(what, " names '", name, "' twice"));
    }
    if (absl::Status status = add(item, name); !status.ok()) return status;
    seen.push_back(std::move(name));
  }
  return absl::OkStatus();
}

// It goes into paths and where models' names go.
bool IsName(std::string_view name) {
  const auto is_plain = [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); };
  return !name.empty() && name.size() <= kMaxNameBytes && is_plain(name.front()) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return is_plain(c) || c == '-' || c == '_' || c == '.'; });
}

bool Contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class AgentReader {
 public:
  AgentReader(const AgentSurroundings& surroundings, AgentList& agents) : around_(surroundings), agents_(agents) {}

  absl::Status Read(const YAML::Node& node) {
    agent_.limits = around_.limits;
    agent_.model = around_.model_names.front();
    const Fields fields = {
        {"name", [this](const YAML::Node& value) { return ReadName(value); }},
        {"description",
         [this](const YAML::Node& value) {
           return ReadText(value, "description", kMaxDescriptionBytes, agent_.description);
         }},
        {"instructions",
         [this](const YAML::Node& value) {
           return ReadText(value, "instructions", kMaxInstructionsBytes, agent_.instructions);
         }},
        {"model", [this](const YAML::Node& value) { return ReadModel(value); }},
        {"tools", [this](const YAML::Node& value) { return ReadTools(value); }},
        {"sampling", [this](const YAML::Node& value) { return ReadSampling(value); }},
        {"limits", [this](const YAML::Node& value) { return ReadLimits(value); }},
        {"tenants", [this](const YAML::Node& value) { return ReadTenants(value); }},
    };
    if (absl::Status status = ReadMap(node, "an agent", fields); !status.ok()) return status;
    if (agent_.name.empty()) return Fault(node, "an agent needs a name");
    agents_.push_back(std::make_shared<const Agent>(std::move(agent_)));
    return absl::OkStatus();
  }

 private:
  absl::Status ReadName(const YAML::Node& node) {
    if (absl::Status status = ReadText(node, "name", kMaxNameBytes, agent_.name); !status.ok()) return status;
    if (!IsName(agent_.name)) {
      return Fault(node, "an agent's name has letters, digits, '-', '_', '.', and begins with one of the first two");
    }
    if (Contains(around_.model_names, agent_.name)) {
      return Fault(node, absl::StrCat("'", agent_.name, "' is the name of a model"));
    }
    const auto is_taken = [this](const auto& other) { return other->name == agent_.name; };
    if (std::any_of(agents_.begin(), agents_.end(), is_taken)) {
      return Fault(node, absl::StrCat("'", agent_.name, "' is the name of another agent"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadModel(const YAML::Node& node) {
    if (absl::Status status = ReadText(node, "model", kMaxFileBytes, agent_.model); !status.ok()) return status;
    if (Contains(around_.model_names, agent_.model)) return absl::OkStatus();
    return Fault(node, absl::StrCat("there is no model '", agent_.model.substr(0, 200),
                                    "'; there is: ", absl::StrJoin(around_.model_names, ", ")));
  }

  absl::Status ReadTools(const YAML::Node& node) {
    return ReadNames(node, "tools", kMaxTools, [this](const YAML::Node& item, const std::string& name) {
      if (around_.tools == nullptr) return absl::OkStatus();
      std::shared_ptr<Tool> tool = around_.tools->Find(name);
      if (tool == nullptr) {
        const std::string there =
            absl::StrJoin(around_.tools->all(), ", ",
                          [](std::string* out, const std::shared_ptr<Tool>& each) { out->append(each->name()); });
        return Fault(item,
                     absl::StrCat("this server has no tool '", name, "'; it has: ", there.empty() ? "none" : there));
      }
      agent_.tools.push_back(std::move(tool));
      return absl::OkStatus();
    });
  }

  absl::Status ReadSampling(const YAML::Node& node) {
    const Fields fields = {
        {"temperature", NumberField("temperature", 0, 2, agent_.temperature)},
        {"top_p", NumberField("top_p", 0.001, 1, agent_.top_p)},
        {"min_p", NumberField("min_p", 0, 1, agent_.min_p)},
        {"repetition_penalty", NumberField("repetition_penalty", 0.01, 2, agent_.repetition_penalty)},
        {"top_k", IntegerField("top_k", -1, INT32_MAX, agent_.top_k)},
        {"seed", IntegerField("seed", 0, INT64_MAX, agent_.seed)},
    };
    return ReadMap(node, "sampling", fields);
  }

  // What the operator allows every run is said once, by flags: here it can be less.
  absl::Status ReadLimits(const YAML::Node& node) {
    RunLimits& limits = agent_.limits;
    const RunLimits& most = around_.limits;
    const int64_t max_total = most.max_total_tokens > 0 ? most.max_total_tokens : kMaxTokens;
    const Fields fields = {
        {"max_turns", IntegerField("max_turns", 1, most.max_turns, limits.max_turns)},
        {"max_tool_calls", IntegerField("max_tool_calls", 0, most.max_tool_calls, limits.max_tool_calls)},
        {"max_output_tokens", IntegerField("max_output_tokens", 1, kMaxTokens, limits.max_output_tokens)},
        {"max_total_tokens", IntegerField("max_total_tokens", 1, max_total, limits.max_total_tokens)},
        {"time", DurationField("time", kMaxTime, agent_.time)},
        {"tool_time", DurationField("tool_time", kMaxToolTime, limits.tool_time)},
    };
    return ReadMap(node, "limits", fields);
  }

  absl::Status ReadTenants(const YAML::Node& node) {
    absl::Status status = ReadNames(node, "tenants", kMaxTenants, [this](const YAML::Node&, const std::string& name) {
      agent_.tenants.push_back(name);
      return absl::OkStatus();
    });
    if (!status.ok() || !agent_.tenants.empty()) return status;
    return Fault(node, "tenants is empty, so nobody could use the agent; without the field everyone may");
  }

  const AgentSurroundings& around_;
  AgentList& agents_;
  Agent agent_;
};

absl::StatusOr<AgentList> Parse(std::string_view text, const AgentSurroundings& surroundings) {
  AgentList agents;
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    const Fields fields = {{"agents", [&](const YAML::Node& list) -> absl::Status {
                              if (!list.IsSequence()) return Fault(list, "agents must be a list");
                              if (list.size() > kMaxAgents) {
                                return Fault(list, absl::StrCat("there are more than ", kMaxAgents, " agents"));
                              }
                              for (const YAML::Node& node : list) {
                                absl::Status status = AgentReader(surroundings, agents).Read(node);
                                if (!status.ok()) return status;
                              }
                              return absl::OkStatus();
                            }}};
    if (absl::Status status = ReadMap(root, "the file", fields); !status.ok()) return status;
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.mark.line + 1, ": ", error.msg));
  }
  return agents;
}

}  // namespace

absl::StatusOr<AgentList> ParseAgents(std::string_view text, std::string_view path,
                                      const AgentSurroundings& surroundings) {
  if (text.size() > kMaxFileBytes)
    return absl::InvalidArgumentError(absl::StrCat(Absl(path), ":1: is larger than 4 MiB"));
  auto agents = Parse(text, surroundings);
  if (!agents.ok()) return absl::InvalidArgumentError(absl::StrCat(Absl(path), ":", agents.status().message()));
  return agents;
}

absl::StatusOr<AgentList> ReadAgents(const std::string& path, const AgentSurroundings& surroundings) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read the file of agents ", path));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseAgents(text, path, surroundings);
}

}  // namespace millrace
