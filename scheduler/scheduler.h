// SPDX-License-Identifier: Apache-2.0
#pragma once
// Decides who computes what next: queue, fairness, pages, prefix reuse, preemption. Pure: no clock, thread or device;
// time comes in as an argument. Owned and called by the engine thread only.
// REQUIRES: steps are computed one after the other, in the order of their plans. So a page that is given up while a
// step is in flight may be planned for someone else at once: that step is through with it before the next one begins.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "scheduler/plan.h"
#include "scheduler/request.h"

namespace millrace {

struct SchedulerConfig {
  int32_t num_pages = 0;  // KV pages of the memory plan
  int32_t page_tokens = 16;
  int32_t max_sequences = 256;          // running at once
  int32_t max_step_tokens = 2048;       // the token budget of a step
  int32_t max_model_tokens = 4096;      // prompt + output of one request
  int32_t max_queued_requests = 1024;   // kept by the caller of Add, who can still tell the client
  int64_t max_queued_tokens = 1 << 22;  // likewise: prompt tokens waiting
  bool enable_prefix_caching = true;
  int32_t max_chunk_tokens = 0;    // a prompt longer than this is long; 0: a quarter of max_step_tokens
  int32_t max_long_prefills = 3;   // long prompts being computed at once; shorter ones pass those that wait
  int32_t min_turn_tokens = 32;    // drawn before a running sequence makes way for someone whose turn it is
  double max_pinned_share = 0.25;  // of all pages, kept for sessions; 0: none
  absl::Duration max_pin_time = absl::Seconds(60);  // after a session's request has ended
  uint64_t prefix_hash_key = 0;                     // secret of the page names; the same key gives the same plans
};

// A snapshot for metrics, cheap.
struct SchedulerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int64_t num_waiting_tokens = 0;
  int32_t num_pages_total = 0;
  int32_t num_pages_used = 0;    // referenced by a sequence (cached but idle pages are free)
  int32_t num_pages_cached = 0;  // idle pages that hold reusable prefixes
  int32_t num_pages_pinned = 0;  // kept for sessions, in use or idle
  uint64_t num_preemptions = 0;
  uint64_t prefix_query_tokens = 0;
  uint64_t prefix_hit_tokens = 0;
};

// Whom a request may have to wait for when all slots or pages are taken:
// - Turns go round the tenants by tokens served per weight; within a tenant by priority, then arrival.
// - A tenant that runs more sequences per weight than the one whose turn it is gives up its newest, which is computed
//   again later. It has drawn at least min_turn_tokens, and a sixteenth of its length, since it last came to run.
// - So within one priority no tenant starves: it waits for a turn of another's spare sequence, and where no tenant has
//   one to spare (more tenants than slots), until one of the running requests ends.
// - A strictly better priority displaces a worse one of any tenant, and nothing displaces a better one: a worse
//   priority may wait for as long as better ones come.
// Where a request names a session, the full pages of what it computed stay pinned after it has ended well: until the
// session's next request has ended, ReleaseSession, or max_pin_time. They are no room for newcomers while anything
// runs, so that others wait rather than take them; where a running sequence cannot grow otherwise, the session that was
// pinned longest ago gives its pages up before anybody is preempted. What may be pinned is shared by weight, too: where
// it does not suffice, the tenant with the most pages per weight gives some up.
class Scheduler {
 public:
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(const SchedulerConfig& config);
  virtual ~Scheduler() = default;

  // Takes a request into the queue. Its output is capped so that the whole stays within max_model_tokens and all pages
  // together (then it finishes with kLength). InvalidArgument: it can never run (the prompt leaves no room for a token,
  // is empty, the weight is not positive), with the numbers. AlreadyExists: the id lives.
  virtual absl::Status Add(Request request, absl::Time now) = 0;
  // Ends a request wherever it is; its pages are free when this returns. Unknown ids are ignored (it may have ended).
  // A pending TokenEvent with kCancelled is given by the next Commit, Abort or TakeEvents.
  virtual void Cancel(RequestId id) = 0;
  // Ends a request whose text matched a stop string: like Cancel, without an event.
  virtual void Finish(RequestId id) = 0;
  // Nothing more comes of a session: its pages are like any others. Unknown ones are ignored.
  virtual void ReleaseSession(uint64_t session) = 0;
  // Decides the next step. Requests past their deadline end here: see TakeEvents. A plan that is not empty is open
  // until it is committed or aborted. REQUIRES: no plan is open, or CanPlanAhead(). Without an open plan it is never
  // empty while a request waits or runs.
  virtual const StepPlan& Plan(absl::Time now) = 0;
  // Whether the next step can be planned while the open one is computed: it is the only one, nothing was planned ahead
  // of it yet, and nobody in it draws a token that the host must know before the one after it can be drawn (a grammar's
  // mask, penalties). Tokens being drawn are then planned as kUnknownToken; whoever turns out to have ended has its
  // rows thrown away.
  virtual bool CanPlanAhead() const = 0;
  // Learns the results of the oldest open plan (one per planned sequence, same order). Results of requests cancelled
  // meanwhile are dropped.
  virtual std::vector<TokenEvent> Commit(const StepResult& result, absl::Time now) = 0;
  // A step failed as a whole: every request of the open plans ends with kError, its pages are freed, and no page filled
  // in them is ever shared.
  virtual std::vector<TokenEvent> Abort() = 0;
  // Events that no step gave (cancelled, past their deadline while waiting).
  virtual std::vector<TokenEvent> TakeEvents() = 0;
  virtual bool Idle() const = 0;                // nothing waits or runs
  virtual absl::Time NextDeadline() const = 0;  // of a request, or of what is kept for a session
  virtual SchedulerStats stats() const = 0;
  virtual std::vector<std::pair<std::string, int32_t>> WaitingByTenant() const = 0;
  // Drops the idle cached pages and the pins of the tenant with this salt, or everybody's (an administrator's reset).
  // How many pages that were. What a sequence uses stays, with its name.
  virtual int32_t ResetPrefixCache(std::optional<uint64_t> salt) = 0;
  // Every invariant of pages, queues and sequences; Internal names the first broken one. For tests and debug builds.
  virtual absl::Status CheckIntegrity() const = 0;
};

}  // namespace millrace
