// SPDX-License-Identifier: Apache-2.0
#include "engine/load/part_tensors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/float_tensor.h"
#include "engine/load/model_part.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

MatrixRows RowsOf(MatrixRows whole, const Interval& rows) {
  MatrixRows part{.n = rows.count, .k = whole.k, .stored = whole.stored};
  if (part.stored.data != nullptr) {
    part.stored.data = static_cast<const char*>(part.stored.data) +
                       rows.first * whole.k * static_cast<int64_t>(DTypeBytes(part.stored.dtype));
  }
  part.read = [read = std::move(whole.read), first = rows.first](int64_t row, float* out) { read(first + row, out); };
  return part;
}

MatrixRows ColumnsOf(MatrixRows rows, const Interval& columns) {
  auto whole = std::make_shared<const MatrixRows>(std::move(rows));
  MatrixRows part{.n = whole->n, .k = columns.count, .whole = whole, .first_input = columns.first};
  part.read = [whole, columns](int64_t row, float* out) {
    if (whole->stored.data != nullptr) {
      return ReadFloats(whole->stored.data, whole->stored.dtype, row * whole->k + columns.first, columns.count, out);
    }
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>(whole->k));
    whole->read(row, values.data());
    std::copy_n(values.data() + columns.first, columns.count, out);
  };
  return part;
}

// The largest group that divides both `group` and a slice of `count` inputs; 0: none does.
int GroupOfSlice(int group, int64_t count) {
  for (; group >= 32; group /= 2) {
    if (count % group == 0) return group;
  }
  return 0;
}

// Groups of the slice may be fractions of the whole's: they have its scale then.
std::unique_ptr<BuiltWeight> Cut(const BuiltWeight& whole, const Interval& outputs, const Interval& inputs) {
  const WeightSource& source = whole.source;
  auto part = std::make_unique<BuiltWeight>();
  part->source = source;
  part->source.n = outputs.count;
  part->source.k = inputs.count;
  part->source.group_size = source.group_size == 0 ? 0 : GroupOfSlice(source.group_size, inputs.count);
  const int64_t values_a_byte = source.format == WeightFormat::kInt4 ? 2 : 1;
  const int64_t row_bytes = inputs.count / values_a_byte, whole_row_bytes = source.k / values_a_byte;
  const int64_t group = part->source.group_size == 0 ? inputs.count : part->source.group_size;
  const int64_t whole_group = source.group_size == 0 ? source.k : source.group_size;
  for (int64_t row = outputs.first; row < outputs.first + outputs.count; ++row) {
    const auto values = whole.values.begin() + row * whole_row_bytes + inputs.first / values_a_byte;
    part->values.insert(part->values.end(), values, values + row_bytes);
    for (int64_t input = inputs.first; input < inputs.first + inputs.count; input += group) {
      const size_t index = static_cast<size_t>(row * (source.k / whole_group) + input / whole_group);
      part->scales.push_back(whole.scales[index]);
      if (!whole.zeros.empty()) part->zeros.push_back(whole.zeros[index]);
    }
  }
  part->PointSource();
  return part;
}

class PartTensors final : public TensorSource {
 public:
  PartTensors(std::unique_ptr<TensorSource> whole, const ModelInfo& part) : whole_(std::move(whole)), part_(part) {}

  bool Has(const std::string& name) const override { return whole_->Has(name); }

  absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) override {
    const Slice slice = SliceOf(name, n, k);
    ASSIGN_OR_RETURN(MatrixRows rows, whole_->Matrix(name, slice.outputs.whole, slice.inputs.whole));
    if (slice.inputs.count != slice.inputs.whole) return ColumnsOf(std::move(rows), slice.inputs);
    if (slice.outputs.count != slice.outputs.whole) return RowsOf(std::move(rows), slice.outputs);
    return rows;
  }

  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) override {
    if (SplitOf(name) == SplitBy::kNothing) return whole_->Vector(name, n);
    // A sum over the ranks must hold such a bias once.
    if (SplitOf(name) == SplitBy::kInputs && part_.part.rank > 0) return std::vector<float>(static_cast<size_t>(n));
    if (SplitOf(name) == SplitBy::kInputs) return whole_->Vector(name, n);
    const Interval interval = IntervalOf(name, part_, n);
    ASSIGN_OR_RETURN(const std::vector<float> values, whole_->Vector(name, interval.whole));
    return std::vector<float>(values.begin() + interval.first, values.begin() + interval.first + n);
  }

  absl::StatusOr<std::optional<StoredForm>> FormOf(const std::string& name, int64_t n, int64_t k) override {
    const Slice slice = SliceOf(name, n, k);
    ASSIGN_OR_RETURN(std::optional<StoredForm> form, whole_->FormOf(name, slice.outputs.whole, slice.inputs.whole));
    if (!form.has_value() || form->kind.group_size == 0) return form;
    const int group = GroupOfSlice(form->kind.group_size, k);
    if (group == 0) {
      return absl::InvalidArgumentError(absl::StrCat("--tensor-parallel-size ", part_.part.num_ranks, ": ", name,
                                                     " has ", slice.inputs.whole, " inputs, and a rank's ", k,
                                                     " do not hold whole groups of 32"));
    }
    form->kind.group_size = group;
    return form;
  }

  absl::StatusOr<std::unique_ptr<BuiltWeight>> Stored(const std::string& name, int64_t n, int64_t k) override {
    const Slice slice = SliceOf(name, n, k);
    ASSIGN_OR_RETURN(std::unique_ptr<BuiltWeight> stored,
                     whole_->Stored(name, slice.outputs.whole, slice.inputs.whole));
    return Cut(*stored, slice.outputs, slice.inputs);
  }

  void Release() override { whole_->Release(); }

 private:
  struct Slice {
    Interval outputs, inputs;
  };
  Slice SliceOf(const std::string& name, int64_t n, int64_t k) const {
    Slice slice{.outputs = {0, n, n}, .inputs = {0, k, k}};
    if (SplitOf(name) == SplitBy::kOutputs) slice.outputs = IntervalOf(name, part_, n);
    if (SplitOf(name) == SplitBy::kInputs) slice.inputs = IntervalOf(name, part_, k);
    return slice;
  }

  const std::unique_ptr<TensorSource> whole_;
  const ModelInfo part_;
};

}  // namespace

std::unique_ptr<TensorSource> MakePartTensors(std::unique_ptr<TensorSource> whole, const ModelInfo& part) {
  return std::make_unique<PartTensors>(std::move(whole), part);
}

}  // namespace millrace
