// SPDX-License-Identifier: Apache-2.0
// The OpenAPI description of the HTTP API, kept beside the routes it describes (a test compares the two).
#include "absl/strings/str_replace.h"
#include "server/api/api_handler.h"

namespace millrace {
namespace {

constexpr char kDocument[] = R"json({
"openapi":"3.1.0",
"info":{"title":"Millrace","version":"$VERSION","license":{"name":"Apache-2.0"},
"description":"LLM inference over OpenAI's API with vLLM's extensions. Unknown fields are tolerated, wrong types are refused."},
"components":{
"securitySchemes":{"key":{"type":"http","scheme":"bearer","description":"Needed on every route but the probes once the server has keys; /metrics asks for the role metrics, /admin for admin."}},
"schemas":{
"Error":{"type":"object","required":["error"],"properties":{"error":{"type":"object","required":["message","type","param","code"],"properties":{
"message":{"type":"string"},"type":{"type":"string"},"param":{"type":["string","null"]},"code":{"type":"string"}}}}},
"Usage":{"type":"object","properties":{"prompt_tokens":{"type":"integer"},"completion_tokens":{"type":"integer"},"total_tokens":{"type":"integer"},
"prompt_tokens_details":{"type":"object","properties":{"cached_tokens":{"type":"integer"}}}}},
"StreamOptions":{"type":["object","null"],"properties":{"include_usage":{"type":"boolean"},"continuous_usage_stats":{"type":"boolean"}}},
"Sampling":{"type":"object","properties":{
"model":{"type":"string"},"temperature":{"type":"number","minimum":0,"maximum":2},"top_p":{"type":"number","exclusiveMinimum":0,"maximum":1},
"top_k":{"type":"integer","minimum":-1},"min_p":{"type":"number","minimum":0,"maximum":1},
"repetition_penalty":{"type":"number","exclusiveMinimum":0,"maximum":2},"presence_penalty":{"type":"number","minimum":-2,"maximum":2},
"frequency_penalty":{"type":"number","minimum":-2,"maximum":2},"logit_bias":{"type":"object","additionalProperties":{"type":"number","minimum":-100,"maximum":100}},
"seed":{"type":"integer"},"n":{"type":"integer","minimum":1,"maximum":128},"max_tokens":{"type":"integer"},"min_tokens":{"type":"integer","minimum":0},
"stop":{"oneOf":[{"type":"string"},{"type":"array","maxItems":16,"items":{"type":"string"}}]},"stop_token_ids":{"type":"array","items":{"type":"integer"}},
"include_stop_str_in_output":{"type":"boolean"},"ignore_eos":{"type":"boolean"},"skip_special_tokens":{"type":"boolean"},
"add_special_tokens":{"type":"boolean"},"prompt_logprobs":{"type":"integer","minimum":0},"priority":{"type":"integer"},"user":{"type":"string"},
"stream":{"type":"boolean"},"stream_options":{"$ref":"#/components/schemas/StreamOptions"}}},
"ChatRequest":{"allOf":[{"$ref":"#/components/schemas/Sampling"},{"type":"object","required":["messages"],"properties":{
"messages":{"type":"array","minItems":1,"items":{"type":"object","required":["role"],"properties":{"role":{"type":"string"},
"content":{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"object"}},{"type":"null"}]}}}},
"tools":{"type":"array","items":{"type":"object"}},"add_generation_prompt":{"type":"boolean"},"continue_final_message":{"type":"boolean"},
"chat_template_kwargs":{"type":"object"},"logprobs":{"type":"boolean"},"top_logprobs":{"type":"integer","minimum":0,"maximum":20},
"max_completion_tokens":{"type":"integer","minimum":1}}}]},
"Prompt":{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"}},{"type":"array","items":{"type":"integer"}},
{"type":"array","items":{"type":"array","items":{"type":"integer"}}}]},
"CompletionRequest":{"allOf":[{"$ref":"#/components/schemas/Sampling"},{"type":"object","required":["prompt"],"properties":{
"prompt":{"$ref":"#/components/schemas/Prompt"},"echo":{"type":"boolean"},"best_of":{"type":"integer","minimum":1},"logprobs":{"type":"integer","minimum":0,"maximum":20}}}]},
"ResponsesRequest":{"type":"object","required":["input"],"properties":{"model":{"type":"string"},
"input":{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"object"}}]},"instructions":{"type":["string","null"]},
"tools":{"type":"array","items":{"type":"object","required":["type"]}},"tool_choice":{"oneOf":[{"type":"string"},{"type":"object"}]},
"text":{"type":"object"},"reasoning":{"type":"object"},"max_output_tokens":{"type":"integer","minimum":1},"max_tool_calls":{"type":"integer","minimum":0},
"temperature":{"type":"number","minimum":0,"maximum":2},"top_p":{"type":"number","exclusiveMinimum":0,"maximum":1},"seed":{"type":"integer"},
"parallel_tool_calls":{"type":"boolean"},"previous_response_id":{"type":["string","null"]},"store":{"type":"boolean","default":true},
"stream":{"type":"boolean"},"include":{"type":"array","items":{"type":"string"}},"metadata":{"type":"object","additionalProperties":{"type":"string"}}}},
"MessagesRequest":{"type":"object","required":["messages"],"properties":{"model":{"type":"string"},"max_tokens":{"type":"integer","minimum":1},
"messages":{"type":"array","minItems":1,"items":{"type":"object","required":["role","content"]}},
"system":{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"object"}}]},"tools":{"type":"array","items":{"type":"object"}},
"tool_choice":{"type":"object"},"stop_sequences":{"type":"array","maxItems":16,"items":{"type":"string"}},"temperature":{"type":"number","minimum":0,"maximum":2},
"top_p":{"type":"number","exclusiveMinimum":0,"maximum":1},"top_k":{"type":"integer","minimum":-1},"seed":{"type":"integer"},
"thinking":{"type":"object"},"output_config":{"type":"object"},"stream":{"type":"boolean"}}},
"AnthropicError":{"type":"object","required":["type","error"],"properties":{"type":{"const":"error"},"request_id":{"type":"string"},
"error":{"type":"object","required":["type","message"],"properties":{"type":{"type":"string"},"message":{"type":"string"},"details":{"type":"object"}}}}},
"Agent":{"type":"object","required":["id","object","created","name","description","model","tools","limits"],"properties":{"id":{"type":"string"},"object":{"const":"agent"},
"created":{"type":"integer"},"name":{"type":"string"},"description":{"type":"string"},"model":{"type":"string"},
"tools":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string"},"description":{"type":"string"}}}},
"limits":{"type":"object","properties":{"max_turns":{"type":"integer"},"max_tool_calls":{"type":"integer"},"max_output_tokens":{"type":"integer"},"max_total_tokens":{"type":"integer"}}}}},
"EmbeddingRequest":{"type":"object","required":["input"],"properties":{"model":{"type":"string"},"input":{"$ref":"#/components/schemas/Prompt"},
"encoding_format":{"enum":["float","base64"]}}}},
"responses":{"Error":{"description":"OpenAI's error shape","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Error"}}}},
"AnthropicError":{"description":"Anthropic's error shape","content":{"application/json":{"schema":{"$ref":"#/components/schemas/AnthropicError"}}}}}},
"security":[{"key":[]}],
"paths":{
"/livez":{"get":{"summary":"200 while the process works; 503 when a step does not end","security":[],"responses":{"200":{"description":"alive"},"503":{"description":"stuck"}}}},
"/readyz":{"get":{"summary":"200 once the model has produced a token and until shutdown begins","security":[],"responses":{"200":{"description":"ready"},"503":{"description":"not ready"}}}},
"/health":{"get":{"summary":"As /readyz","security":[],"responses":{"200":{"description":"ready"},"503":{"description":"not ready"}}}},
"/ping":{"get":{"summary":"As /readyz","security":[],"responses":{"200":{"description":"ready"},"503":{"description":"not ready"}}}},
"/metrics":{"get":{"summary":"Prometheus text format","responses":{"200":{"description":"metrics","content":{"text/plain":{}}}}}},
"/version":{"get":{"summary":"The server's version","responses":{"200":{"description":"version","content":{"application/json":{}}}}}},
"/openapi.json":{"get":{"summary":"This document","responses":{"200":{"description":"OpenAPI","content":{"application/json":{}}}}}},
"/v1/models":{"get":{"summary":"The served model's names, and the agents that the key may use","responses":{"200":{"description":"list","content":{"application/json":{}}}}}},
"/v1/models/{id}":{"get":{"summary":"One model","parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],
"responses":{"200":{"description":"model","content":{"application/json":{}}},"404":{"$ref":"#/components/responses/Error"}}}},
"/v1/agents":{"get":{"summary":"The agents that the key may use; each can be the model of a chat, a response or a message",
"responses":{"200":{"description":"list","content":{"application/json":{"schema":{"type":"object","properties":{"object":{"const":"list"},"has_more":{"type":"boolean"},
"data":{"type":"array","items":{"$ref":"#/components/schemas/Agent"}}}}}}}}}},
"/v1/agents/{name}":{"get":{"summary":"One agent","parameters":[{"name":"name","in":"path","required":true,"schema":{"type":"string"}}],
"responses":{"200":{"description":"agent","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Agent"}}}},"404":{"$ref":"#/components/responses/Error"}}}},
"/v1/chat/completions":{"post":{"summary":"Answer a chat","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/ChatRequest"}}}},
"responses":{"200":{"description":"chat.completion, or chat.completion.chunk as server-sent events","content":{"application/json":{},"text/event-stream":{}}},
"400":{"$ref":"#/components/responses/Error"},"401":{"$ref":"#/components/responses/Error"},"404":{"$ref":"#/components/responses/Error"},"429":{"$ref":"#/components/responses/Error"},"503":{"$ref":"#/components/responses/Error"}}}},
"/v1/completions":{"post":{"summary":"Complete a text","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/CompletionRequest"}}}},
"responses":{"200":{"description":"text_completion, whole or as server-sent events","content":{"application/json":{},"text/event-stream":{}}},
"400":{"$ref":"#/components/responses/Error"},"429":{"$ref":"#/components/responses/Error"},"503":{"$ref":"#/components/responses/Error"}}}},
"/v1/embeddings":{"post":{"summary":"The last hidden state of each input's last token","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/EmbeddingRequest"}}}},
"responses":{"200":{"description":"list of embeddings","content":{"application/json":{}}},"400":{"$ref":"#/components/responses/Error"}}}},
"/v1/responses":{"post":{"summary":"Answer by an agent run: OpenAI's Responses API","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/ResponsesRequest"}}}},
"responses":{"200":{"description":"response, or its events as server-sent events","content":{"application/json":{},"text/event-stream":{}}},
"400":{"$ref":"#/components/responses/Error"},"404":{"$ref":"#/components/responses/Error"},"429":{"$ref":"#/components/responses/Error"},"503":{"$ref":"#/components/responses/Error"}}}},
"/v1/responses/input_tokens":{"post":{"summary":"How many tokens the prompt would have","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/ResponsesRequest"}}}},
"responses":{"200":{"description":"response.input_tokens","content":{"application/json":{}}},"400":{"$ref":"#/components/responses/Error"}}}},
"/v1/responses/{id}":{"get":{"summary":"A stored response","parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],"responses":{"200":{"description":"response","content":{"application/json":{}}},"404":{"$ref":"#/components/responses/Error"}}},
"delete":{"summary":"Forget a stored response","parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],"responses":{"200":{"description":"what was deleted","content":{"application/json":{}}},"404":{"$ref":"#/components/responses/Error"}}}},
"/v1/responses/{id}/input_items":{"get":{"summary":"What was new in a response's request","parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}},
{"name":"limit","in":"query","schema":{"type":"integer","minimum":1,"maximum":100}},{"name":"order","in":"query","schema":{"enum":["asc","desc"]}},{"name":"after","in":"query","schema":{"type":"string"}}],
"responses":{"200":{"description":"list of items","content":{"application/json":{}}},"404":{"$ref":"#/components/responses/Error"}}}},
"/v1/responses/{id}/cancel":{"post":{"summary":"Only responses in the background could be cancelled, and there are none yet: always refused","parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],
"responses":{"400":{"$ref":"#/components/responses/Error"},"404":{"$ref":"#/components/responses/Error"}}}},
"/v1/messages":{"post":{"summary":"Answer by an agent run: Anthropic's Messages API","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/MessagesRequest"}}}},
"responses":{"200":{"description":"message, or its events as server-sent events","content":{"application/json":{},"text/event-stream":{}}},
"400":{"$ref":"#/components/responses/AnthropicError"},"404":{"$ref":"#/components/responses/AnthropicError"},"429":{"$ref":"#/components/responses/AnthropicError"},"503":{"$ref":"#/components/responses/AnthropicError"}}}},
"/v1/messages/count_tokens":{"post":{"summary":"How many tokens the prompt has","requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/MessagesRequest"}}}},
"responses":{"200":{"description":"input_tokens","content":{"application/json":{}}},"400":{"$ref":"#/components/responses/AnthropicError"}}}},
"/tokenize":{"post":{"summary":"Token ids of a prompt or of a rendered chat","requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object",
"properties":{"prompt":{"type":"string"},"messages":{"type":"array","items":{"type":"object"}},"add_special_tokens":{"type":"boolean"},"return_token_strs":{"type":"boolean"}}}}}},
"responses":{"200":{"description":"count, max_model_len, tokens","content":{"application/json":{}}},"400":{"$ref":"#/components/responses/Error"}}}},
"/detokenize":{"post":{"summary":"Text of token ids","requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["tokens"],
"properties":{"tokens":{"type":"array","items":{"type":"integer"}}}}}}},
"responses":{"200":{"description":"prompt","content":{"application/json":{}}},"400":{"$ref":"#/components/responses/Error"}}}},
"/admin/usage":{"get":{"summary":"What each tenant has used since the start and by day; needs the role admin","parameters":[{"name":"format","in":"query","schema":{"enum":["json","csv"]}}],
"responses":{"200":{"description":"counts","content":{"application/json":{},"text/csv":{}}},"403":{"$ref":"#/components/responses/Error"}}}},
"/admin/keys":{"get":{"summary":"The keys by name, with their limits and no secrets; needs the role admin","responses":{"200":{"description":"list","content":{"application/json":{}}},"403":{"$ref":"#/components/responses/Error"}}}},
"/admin/cache/purge":{"post":{"summary":"Take answers out of the response cache: a tenant's, a model's, or all; needs the role admin","requestBody":{"content":{"application/json":{"schema":{"type":"object",
"properties":{"tenant":{"type":"string"},"model":{"type":"string"}}}}}},
"responses":{"200":{"description":"purged: how many went","content":{"application/json":{}}},"403":{"$ref":"#/components/responses/Error"},"404":{"$ref":"#/components/responses/Error"}}}},
"/admin/prefix-cache/reset":{"post":{"summary":"Forget the KV pages that no request uses: a tenant's, or all; needs the role admin","requestBody":{"content":{"application/json":{"schema":{"type":"object",
"properties":{"tenant":{"type":"string"}}}}}},
"responses":{"200":{"description":"freed_pages: how many went","content":{"application/json":{}}},"403":{"$ref":"#/components/responses/Error"},"503":{"$ref":"#/components/responses/Error"},"504":{"$ref":"#/components/responses/Error"}}}}
}})json";

}  // namespace

std::string OpenApiDocument(const std::string& version) {
  return absl::StrReplaceAll(kDocument, {{"$VERSION", version}, {"\n", ""}});
}

}  // namespace millrace
