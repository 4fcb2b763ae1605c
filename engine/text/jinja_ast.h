// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tree of a parsed chat template. Immutable after parsing, so any number of renders may walk it at once.
// Internal to the template engine.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/template_value.h"

namespace millrace {

class JinjaEvaluator;
struct JinjaArgs;
using JinjaFilter = absl::StatusOr<TemplateValue> (*)(JinjaEvaluator&, const TemplateValue&, const JinjaArgs&);
using JinjaTest = absl::StatusOr<bool> (*)(JinjaEvaluator&, const TemplateValue&, const JinjaArgs&);

enum class JinjaOp {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn,
  kNeg,
  kPos,
  kNot,
};

struct JinjaExpr;
using JinjaExprPtr = std::unique_ptr<JinjaExpr>;

// A call's arguments as written: f(a, *b, c=d, **e).
struct JinjaCallArgs {
  std::vector<JinjaExprPtr> positional;
  std::vector<std::pair<std::string, JinjaExprPtr>> named;
  JinjaExprPtr star;
  JinjaExprPtr star_star;
};

struct JinjaExpr {
  enum class Kind {
    kConst,      // value
    kName,       // name_id
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value ...
    kAttribute,  // children[0].name
    kItem,       // children[0][children[1]]
    kSlice,      // children: object, start, stop, step (null where absent)
    kCall,       // children[0](args)
    kFilter,     // children[0] | name(args); children[0] is null in a filter block
    kTest,       // children[0] is name(args)
    kUnary,      // op children[0]
    kBinary,     // children[0] op children[1]
    kAnd,
    kOr,
    kConcat,     // children joined by ~
    kCompare,    // children[0] ops[0] children[1] ops[1] ...
    kCondition,  // children: test, then, else (null where absent)
  };
  Kind kind = Kind::kConst;
  int line = 0;
  int depth = 1;  // levels below and with this one
  int name_id = -1;
  std::string name;
  TemplateValue value;
  JinjaOp op = JinjaOp::kAdd;
  std::vector<JinjaOp> ops;
  std::vector<JinjaExprPtr> children;
  JinjaCallArgs args;
  JinjaFilter filter = nullptr;  // null: no such filter, an error when it is reached
  JinjaTest test = nullptr;
};

struct JinjaStatement;
using JinjaBody = std::vector<std::unique_ptr<JinjaStatement>>;

// Where an assignment goes: one name, one attribute of a namespace, or a tuple of targets.
struct JinjaTarget {
  int name_id = -1;
  std::string attribute;  // set: name_id is a namespace
  std::vector<JinjaTarget> parts;
};

// Parameters of a macro or a call block; the last defaults.size() of them have defaults.
struct JinjaSignature {
  std::vector<std::pair<int, std::string>> parameters;  // id and name
  std::vector<JinjaExprPtr> defaults;
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct JinjaStatement {
  enum class Kind {
    kData,       // text
    kOutput,     // expressions
    kIf,         // expressions are the tests, bodies their branches; one body more is the else
    kFor,        // target, expressions[0] iterable, [1] filter (null where absent), bodies[0], [1] else (may be empty)
    kSet,        // target = expressions[0]
    kSetBlock,   // target = bodies[0] through the filter expressions[0] (null where absent)
    kMacro,      // name_id, signature, bodies[0]
    kCallBlock,  // expressions[0] is the call, signature and bodies[0] the caller
    kFilter,     // bodies[0] through expressions[0]
    kWith,       // targets = expressions, bodies[0]
    kScope,      // bodies[0] with variables of its own
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kData;
  int line = 0;
  TemplateString text;
  std::vector<JinjaExprPtr> expressions;
  std::vector<JinjaBody> bodies;
  JinjaTarget target;
  std::vector<JinjaTarget> targets;
  JinjaSignature signature;
  int name_id = -1;
  bool is_recursive = false;
};

struct JinjaTree {
  JinjaBody body;
  std::vector<std::string> names;  // by name_id
};

struct JinjaParseLimits {
  size_t max_source_bytes = 1 << 20;
  int max_depth = 200;              // nesting of statements and brackets together
  int max_expression_height = 300;  // longest chain of operators
  int max_nodes = 200'000;          // expressions and statements
};

absl::StatusOr<std::unique_ptr<JinjaTree>> ParseJinja(std::string_view source, const JinjaParseLimits& limits);

}  // namespace millrace
