// SPDX-License-Identifier: Apache-2.0
// The page's behaviour: a chat, an agent run with its steps, and plots of /metrics. What a model or a tool wrote only
// ever becomes text, never markup. Nothing is stored; the key lives as long as the page.
"use strict";

const byId = (id) => document.getElementById(id);
const state = { mode: "chat", messages: { chat: [], agent: null }, abort: null };

function headers() {
  const key = byId("key").value.trim();
  return key ? { authorization: "Bearer " + key, "content-type": "application/json" } : { "content-type": "application/json" };
}

// ---- what was said ----------------------------------------------------------------------------------------------

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function addTurn(kind, text) {
  const turn = byId("turns").appendChild(element("div", "turn " + kind, text));
  turn.scrollIntoView({ block: "end" });
  return turn;
}

function append(turn, text) {
  turn.textContent += text;
  turn.scrollIntoView({ block: "end" });
}

// A step of a run: what was called, with what, and what came of it.
function addStep(title, name) {
  const step = byId("turns").appendChild(element("details", "step"));
  const summary = step.appendChild(element("summary"));
  summary.append(title + " ", element("b", "", name));
  const parts = { node: step, note: summary.appendChild(element("span")), input: step.appendChild(element("pre", "input")), output: step.appendChild(element("pre", "output")) };
  parts.note.textContent = " …";
  step.scrollIntoView({ block: "end" });
  return parts;
}

// ---- streams ----------------------------------------------------------------------------------------------------

async function* serverSentEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const frames = rest.split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function post(path, body) {
  state.abort = new AbortController();
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal: state.abort.signal });
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error ? answer.error.message : "the server answered " + response.status);
  }
  return response;
}

function describeUsage(input, cached, output, begun) {
  const seconds = (performance.now() - begun) / 1000;
  return `${input} tokens read${cached ? ` (${cached} of them cached)` : ""}, ${output} written in ${seconds.toFixed(2)} s`;
}

async function chat(text) {
  const messages = state.messages.chat;
  messages.push({ role: "user", content: text });
  const begun = performance.now();
  const response = await post("/v1/chat/completions", {
    messages, stream: true, stream_options: { include_usage: true }, temperature: Number(byId("temperature").value) });
  let answer = "", thought = null, turn = null, usage = null;
  for await (const chunk of serverSentEvents(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) usage = chunk.usage;
    const delta = chunk.choices && chunk.choices[0] ? chunk.choices[0].delta : {};
    if (delta.reasoning_content) {
      thought = thought || addStep("thought", "");
      thought.note.textContent = "";
      thought.output.textContent += delta.reasoning_content;
    }
    if (!delta.content) continue;
    turn = turn || addTurn("assistant", "");
    answer += delta.content;
    append(turn, delta.content);
  }
  if (!turn) addTurn("assistant", "");
  messages.push({ role: "assistant", content: answer });
  if (usage) addTurn("usage", describeUsage(usage.prompt_tokens, (usage.prompt_tokens_details || {}).cached_tokens, usage.completion_tokens, begun));
}

// ---- an agent run -----------------------------------------------------------------------------------------------

function chosenTools() {
  const names = [...document.querySelectorAll("input[name=tool]:checked")].map((box) => box.value);
  return names.length ? [{ type: "mcp", server_label: "millrace", allowed_tools: names, require_approval: "never" }] : [];
}

function finishStep(step, item) {
  const failure = item.error ? (typeof item.error === "string" ? item.error : item.error.message || JSON.stringify(item.error)) : "";
  step.input.textContent = item.arguments || item.code || "";
  step.output.textContent = failure || item.output || (item.outputs || []).map((part) => part.logs || "").join("");
  step.note.textContent = failure ? " failed" : " done";
  step.node.classList.toggle("failed", Boolean(failure));
  step.node.open = true;
}

async function runAgent(text) {
  const begun = performance.now();
  const response = await post("/v1/responses", {
    input: text, stream: true, tools: chosenTools(), previous_response_id: state.messages.agent, temperature: Number(byId("temperature").value) });
  const steps = new Map();
  let turn = null;
  for await (const event of serverSentEvents(response)) {
    const item = event.item || {};
    if (event.type === "error") throw new Error(event.message || (event.error || {}).message || "the run failed");
    if (event.type === "response.output_item.added" && item.type !== "message") {
      steps.set(item.id, addStep(item.type === "reasoning" ? "thought" : "called", item.name || (item.type === "reasoning" ? "" : item.type)));
      turn = null;
    } else if (event.type === "response.reasoning_text.delta" && steps.has(event.item_id)) {
      steps.get(event.item_id).output.textContent += event.delta;
    } else if (event.type === "response.output_text.delta") {
      turn = turn || addTurn("assistant", "");
      append(turn, event.delta);
    } else if (event.type === "response.output_item.done" && steps.has(item.id)) {
      if (item.type === "reasoning") steps.get(item.id).note.textContent = "";
      else finishStep(steps.get(item.id), item);
    } else if (event.type === "response.failed") {
      throw new Error(((event.response || {}).error || {}).message || "the run failed");
    } else if (event.type === "response.completed" || event.type === "response.incomplete") {
      state.messages.agent = event.response.id;
      const usage = event.response.usage;
      const why = event.type === "response.incomplete" ? "; not finished: " + ((event.response.incomplete_details || {}).reason || "") : "";
      if (usage) addTurn("usage", describeUsage(usage.input_tokens, (usage.input_tokens_details || {}).cached_tokens, usage.output_tokens, begun) + why);
    }
  }
}

// ---- the form ---------------------------------------------------------------------------------------------------

function setBusy(isBusy) {
  byId("send").disabled = isBusy;
  byId("stop").disabled = !isBusy;
}

async function ask(event) {
  event.preventDefault();
  const text = byId("prompt").value.trim();
  if (!text || byId("send").disabled) return;
  byId("prompt").value = "";
  addTurn("user", text);
  setBusy(true);
  try {
    await (state.mode === "chat" ? chat(text) : runAgent(text));
  } catch (error) {
    addTurn("error", error.name === "AbortError" ? "stopped" : error.message);
  } finally {
    setBusy(false);
  }
}

function clearTurns() {
  byId("turns").replaceChildren();
  state.messages = { chat: [], agent: null };
}

function selectMode(mode) {
  if (state.mode !== mode) clearTurns();
  state.mode = mode;
  document.body.className = mode + "-mode";
  for (const name of ["chat", "agent"]) byId("tab-" + name).setAttribute("aria-selected", String(name === mode));
}

// ---- plots ------------------------------------------------------------------------------------------------------

const kSeconds = 120;
const series = { queue: [[], []], kv: [[]], tokens: [[], []] };
let before = null;

// The sum of a metric's samples over its labels, by name.
function readMetrics(page) {
  const sums = new Map();
  for (const line of page.split("\n")) {
    if (!line || line[0] === "#") continue;
    const name = line.slice(0, line.search(/[{ ]/));
    sums.set(name, (sums.get(name) || 0) + Number(line.slice(line.lastIndexOf(" ") + 1)));
  }
  return (name) => sums.get(name) || 0;
}

function draw(id, lines, top) {
  const svg = byId("plot-" + id);
  const shape = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const highest = top || Math.max(1, ...lines.flat()) * 1.1;
  const children = [0, 40, 79].map((y) => shape("line", { class: "grid", x1: 0, x2: 300, y1: y, y2: y }));
  lines.forEach((values, index) => {
    const points = values.map((value, i) => `${300 - (values.length - 1 - i) * (300 / (kSeconds - 1))},${79 - 78 * Math.min(1, value / highest)}`);
    children.push(shape("polyline", { class: "line " + "ab"[index], points: points.join(" ") }));
  });
  svg.replaceChildren(...children);
}

function push(values, value) {
  values.push(value);
  if (values.length > kSeconds) values.shift();
}

async function poll() {
  const now = performance.now();
  let page = null;
  try {
    const ready = await fetch("/readyz");
    const text = (await ready.text()).trim();
    byId("state").textContent = ready.ok ? "ready" : text;
    byId("state").className = "state " + (ready.ok ? "good" : "bad");
    if (ready.ok && byId("model").dataset.known !== byId("key").value) await showModel();
    const metrics = await fetch("/metrics", { headers: headers() });
    if (metrics.ok) page = await metrics.text();
    byId("plots-note").textContent = metrics.ok ? "the last two minutes, from /metrics" : "no plots: /metrics needs a key that may read it";
  } catch {
    byId("state").textContent = "no answer";
    byId("state").className = "state bad";
  }
  if (page === null) return;
  const read = readMetrics(page);
  const totals = { time: now, generated: read("vllm:generation_tokens_total"), prompt: read("vllm:prompt_tokens_total") };
  const rate = (name) => (before ? Math.max(0, (totals[name] - before[name]) / ((totals.time - before.time) / 1000)) : 0);
  push(series.queue[0], read("vllm:num_requests_running"));
  push(series.queue[1], read("vllm:num_requests_waiting"));
  push(series.kv[0], read("vllm:kv_cache_usage_perc"));
  push(series.tokens[0], rate("generated"));
  push(series.tokens[1], rate("prompt"));
  before = totals;
  const last = (values) => values[values.length - 1];
  byId("now-queue").value = `${last(series.queue[0])} / ${last(series.queue[1])}`;
  byId("now-kv").value = `${(100 * last(series.kv[0])).toFixed(1)} %`;
  byId("now-tokens").value = `${last(series.tokens[0]).toFixed(0)} / ${last(series.tokens[1]).toFixed(0)}`;
  draw("queue", series.queue);
  draw("kv", series.kv, 1);
  draw("tokens", series.tokens);
}

async function showModel() {
  const answer = await fetch("/v1/models", { headers: headers() });
  byId("model").dataset.known = byId("key").value;
  const model = answer.ok ? (await answer.json()).data[0] : null;
  byId("model").textContent = model ? `${model.id}, ${model.max_model_len} tokens` : "a key is needed";
}

async function pollForever() {
  await poll();
  setTimeout(pollForever, 1000);
}

byId("ask").addEventListener("submit", ask);
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) ask(event);
});
byId("stop").addEventListener("click", () => state.abort && state.abort.abort());
byId("clear").addEventListener("click", clearTurns);
byId("tab-chat").addEventListener("click", () => selectMode("chat"));
byId("tab-agent").addEventListener("click", () => selectMode("agent"));
selectMode("chat");
pollForever();
