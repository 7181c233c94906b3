import OpenAI from "openai";
import { CITY, HI, PNG, REMEMBER, RESULT, URL, WEATHER, WHICH, tell } from "./tell.mjs";

const tools = [{ type: "function", name: "weather", parameters: CITY, strict: false }];
const text = { format: { type: "json_schema", name: "weather", schema: WEATHER, strict: true } };

function client(key) {
  // docs
  const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: key });
  // end
  return client;
}

const counted = (usage) => [usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens];

async function whole(model, key) {
  const answer = await client(key).responses.create({ model, input: HI });
  return { text: answer.output_text, usage: counted(answer.usage) };
}

async function stream(model, key) {
  const pieces = [];
  let last;
  for await (const event of await client(key).responses.create({ model, input: HI, stream: true })) {
    last = event;
    if (event.type === "response.output_text.delta") pieces.push(event.delta);
  }
  return { text: pieces.join(""), pieces: pieces.length, usage: counted(last.response.usage) };
}

async function called(ask) {
  const asked = [{ role: "user", content: HI }];
  const first = await ask(asked);
  const call = first.output.find((item) => item.type === "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: RESULT };
  const second = await ask([...asked, ...first.output, result]);
  return { tool: call.name, arguments: JSON.parse(call.arguments), text: second.output_text };
}

async function called_whole(model, key) {
  return called((input) => client(key).responses.create({ model, input, tools }));
}

async function streamed_tools(model, key) {
  return called((input) => client(key).responses.stream({ model, input, tools }).finalResponse());
}

async function structured(model, key) {
  const answer = await client(key).responses.create({ model, input: HI, text });
  return { object: JSON.parse(answer.output_text) };
}

async function thinking(model, key) {
  const answer = await client(key).responses.create({ model, input: HI });
  const thoughts = answer.output.filter((item) => item.type === "reasoning").flatMap((item) => item.summary);
  return { thought: thoughts.map((part) => part.text).join(""), text: answer.output_text };
}

async function image(model, key) {
  const content = [
    { type: "input_text", text: "What colour?" },
    { type: "input_image", image_url: `data:image/png;base64,${PNG}`, detail: "auto" },
  ];
  return { text: (await client(key).responses.create({ model, input: [{ role: "user", content }] })).output_text };
}

async function follow(model, key) {
  const first = await client(key).responses.create({ model, input: REMEMBER });
  const asked = { model, input: WHICH, previous_response_id: first.id };
  return { text: (await client(key).responses.create(asked)).output_text };
}

async function embeddings(model, key) {
  return { vector: [...(await client(key).embeddings.create({ model, input: HI })).data[0].embedding] };
}

async function models(model, key) {
  const found = [];
  for await (const one of client(key).models.list()) found.push(one.id);
  return { models: found };
}

await tell({ whole, stream, tools: called_whole, streamed_tools, structured, thinking, image, follow, embeddings, models });
