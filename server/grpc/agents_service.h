// SPDX-License-Identifier: Apache-2.0
#pragma once
// millrace.v1.Agents over the callback API: every call is one agent run, or the list of agents. Thread-safe; gRPC's
// threads call it and are never blocked.
#include "proto/millrace/v1/agents.grpc.pb.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "server/grpc/grpc_backend.h"

namespace millrace {

class AgentsService final : public v1::Agents::CallbackService {
 public:
  // All outlive the service.
  AgentsService(const GrpcBackend& backend, CallGate& gate, AgentRuns& runs, const AgentCatalogue& agents)
      : backend_(backend), gate_(gate), runs_(runs), agents_(agents) {}

  grpc::ServerWriteReactor<v1::RunEvent>* StartRun(grpc::CallbackServerContext* context,
                                                   const v1::StartRunRequest* request) override;
  grpc::ServerUnaryReactor* ListAgents(grpc::CallbackServerContext* context, const v1::ListAgentsRequest* request,
                                       v1::ListAgentsResponse* response) override;

 private:
  class RunCall;

  const GrpcBackend& backend_;
  CallGate& gate_;
  AgentRuns& runs_;
  const AgentCatalogue& agents_;
};

}  // namespace millrace
