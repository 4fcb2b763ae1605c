// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/tool.h"

namespace millrace {

// The value of an arithmetic expression, as text. Integers are exact up to 127 bits and become doubles beyond, which
// are written with an exponent or a point. InvalidArgument with the place of the fault; nothing but arithmetic is
// understood. Work is bounded by the length of the expression.
//
//   sum      := product { (+|-) product }
//   product  := unary { (*|/|//|%) unary }        // and % round towards minus infinity
//   unary    := (+|-) unary | power
//   power    := atom [ (**|^) unary ]             right to left, binds tighter than a sign before it
//   atom     := number | name | name ( sum {, sum} ) | ( sum )
absl::StatusOr<std::string> Calculate(std::string_view expression);

class CalculatorTool : public Tool {
 public:
  std::string_view name() const override { return "calculator"; }
  std::string_view description() const override {
    return "Evaluates an arithmetic expression: + - * / // % ** ( ), pi, e, sqrt, abs, floor, ceil, round, exp, ln, "
           "log10, log2, sin, cos, tan, asin, acos, atan, min, max. Angles are radians.";
  }
  std::string_view parameters() const override {
    return R"json({"type":"object","properties":{"expression":{"type":"string","description":"such as 2*(3+4)"}},)json"
           R"json("required":["expression"],"additionalProperties":false})json";
  }
  ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) override;
};

}  // namespace millrace
