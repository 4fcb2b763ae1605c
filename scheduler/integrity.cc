// SPDX-License-Identifier: Apache-2.0
// Every invariant of the scheduler, checked from scratch. For tests and debug builds: linear in pages and tokens.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "scheduler/scheduler_impl.h"

namespace millrace {
namespace {

absl::Status Broken(absl::string_view what) { return absl::InternalError(what); }

}  // namespace

absl::Status SchedulerImpl::CheckIntegrity() const {
  if (!index_.IsConsistent()) return Broken("a page's name does not lead to it");
  if (!pool_.IsConsistent()) return Broken("a page is not in exactly one of free, idle and used");
  if (!queue_.IsConsistent()) return Broken("the queue's books do not add up");
  if (queue_.num_waiting() + running_.size() != sequences_.size()) return Broken("a request neither waits nor runs");
  if (!std::is_sorted(running_.begin(), running_.end(), BetterSequence())) return Broken("running is not in order");
  if (static_cast<int32_t>(running_.size()) > config_.max_sequences) return Broken("too many sequences run");
  for (const OpenStep& step : steps_) {
    if (step.plan.num_rows > config_.max_step_tokens) return Broken("the plan exceeds the token budget");
  }
  if (deadlines_.size() != by_deadline_arrival_.size()) return Broken("a deadline has no sequence");
  if (absl::Status status = CheckSequences(); !status.ok()) return status;
  return CheckReferences();
}

absl::Status SchedulerImpl::CheckSequences() const {
  for (const auto& [id, sequence] : sequences_) {
    const std::string name = absl::StrCat("request ", id.value, ": ");
    const int32_t num_known = sequence->num_computed + sequence->num_planned;
    if (sequence->request.id != id) return Broken(name + "filed under another id");
    if (num_known > sequence->num_tokens()) return Broken(name + "more computed than known");
    if (sequence->num_tokens() > sequence->max_tokens) return Broken(name + "longer than its cap");
    if (sequence->is_running && sequence->num_remaining() == 0 && !sequence->is_drawing) {
      return Broken(name + "runs with nothing to compute");
    }
    if (!HasKnownTokens(*sequence)) return Broken(name + "a token is unknown that no step draws");
    if (static_cast<int32_t>(sequence->pages.size()) != PagesFor(num_known)) {
      return Broken(absl::StrCat(name, sequence->pages.size(), " pages for ", num_known, " tokens"));
    }
    if (num_open_ == 0 && sequence->num_planned != 0) return Broken(name + "planned without a plan");
    if (!sequence->is_running && num_known != 0) return Broken(name + "waits with something computed");
    for (PageId page : sequence->pages) {
      if (index_.Contains(page) && index_.salt(page) != sequence->request.tenant.salt) {
        return Broken(absl::StrCat(name, "holds page ", page, " of another tenant"));
      }
    }
  }
  return absl::OkStatus();
}

// All but the last while a step draws it.
bool SchedulerImpl::HasKnownTokens(const Sequence& sequence) const {
  const bool is_last_unknown = sequence.is_drawing && sequence.request.kind == Request::Kind::kGenerate;
  const auto unknown = std::find(sequence.tokens.begin(), sequence.tokens.end(), kUnknownToken);
  return sequence.tokens.end() - unknown == (is_last_unknown ? 1 : 0) && (num_open_ > 0 || !sequence.is_drawing);
}

absl::Status SchedulerImpl::CheckReferences() const {
  std::vector<int32_t> num_references(pool_.num_pages(), 0);
  for (const Sequence* sequence : running_) {
    for (PageId page : sequence->pages) ++num_references[page];
  }
  if (!pins_.IsConsistent()) return Broken("a tenant's pinned pages do not add up");
  const std::vector<int32_t> num_pins = pins_.Count();
  for (PageId page = 0; page < pool_.num_pages(); ++page) {
    if (num_pins[page] != pool_.num_pins(page)) {
      return Broken(absl::StrCat("page ", page, " has ", num_pins[page], " pins, but counts ", pool_.num_pins(page)));
    }
    if (num_references[page] == pool_.num_references(page)) continue;
    return Broken(absl::StrCat("page ", page, " is held by ", num_references[page], " sequences, but counts ",
                               pool_.num_references(page), " references"));
  }
  return absl::OkStatus();
}

}  // namespace millrace
