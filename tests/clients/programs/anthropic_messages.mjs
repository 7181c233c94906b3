import Anthropic from "@anthropic-ai/sdk";
import { CITY, HI, PNG, RESULT, URL, WEATHER, tell } from "./tell.mjs";

const messages = [{ role: "user", content: HI }];
const tools = [{ name: "weather", input_schema: CITY }];
const max_tokens = 4000;

function client(key) {
  // docs
  const client = new Anthropic({ baseURL: URL, apiKey: key }); // without /v1
  // end
  return client;
}

const textOf = (answer) => answer.content.filter((b) => b.type === "text").map((b) => b.text).join("");

function counted(usage) {
  const { cache_read_input_tokens: cached, cache_creation_input_tokens: written } = usage;
  return [usage.input_tokens + cached + written, usage.output_tokens, cached];
}

async function whole(model, key) {
  const answer = await client(key).messages.create({ model, messages, max_tokens });
  return { text: textOf(answer), usage: counted(answer.usage) };
}

async function stream(model, key) {
  const pieces = [];
  const streamed = client(key).messages.stream({ model, messages, max_tokens });
  streamed.on("text", (piece) => pieces.push(piece));
  const answer = await streamed.finalMessage();
  return { text: pieces.join(""), pieces: pieces.length, usage: counted(answer.usage) };
}

async function called(ask) {
  const first = await ask(messages);
  const call = first.content.find((block) => block.type === "tool_use");
  const content = [{ type: "tool_result", tool_use_id: call.id, content: RESULT }];
  const second = await ask([...messages, { role: "assistant", content: first.content }, { role: "user", content }]);
  return { tool: call.name, arguments: call.input, text: textOf(second) };
}

async function called_whole(model, key) {
  return called((messages) => client(key).messages.create({ model, messages, max_tokens, tools }));
}

async function streamed_tools(model, key) {
  return called((messages) => client(key).messages.stream({ model, messages, max_tokens, tools }).finalMessage());
}

async function structured(model, key) {
  const output_config = { format: { type: "json_schema", schema: WEATHER } };
  const answer = await client(key).messages.create({ model, messages, max_tokens, output_config });
  return { object: JSON.parse(textOf(answer)) };
}

async function thinking(model, key) {
  const thinking = { type: "enabled", budget_tokens: 2000 };
  const answer = await client(key).messages.stream({ model, messages, max_tokens, thinking }).finalMessage();
  const thoughts = answer.content.filter((block) => block.type === "thinking").map((block) => block.thinking);
  return { thought: thoughts.join(""), text: textOf(answer) };
}

async function image(model, key) {
  const source = { type: "base64", media_type: "image/png", data: PNG };
  const content = [{ type: "image", source }, { type: "text", text: "What colour?" }];
  return { text: textOf(await client(key).messages.create({ model, max_tokens, messages: [{ role: "user", content }] })) };
}

async function models(model, key) {
  const found = [];
  for await (const one of client(key).models.list()) found.push(one.display_name);
  return { models: found };
}

await tell({ whole, stream, tools: called_whole, streamed_tools, structured, thinking, image, models });
