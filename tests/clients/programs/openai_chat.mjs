import OpenAI from "openai";
import { CITY, HI, PNG, RESULT, URL, WEATHER, tell } from "./tell.mjs";

const messages = [{ role: "user", content: HI }];
const tools = [{ type: "function", function: { name: "weather", parameters: CITY } }];
const schema = { type: "json_schema", json_schema: { name: "weather", schema: WEATHER, strict: true } };

function client(key) {
  // docs
  const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: key });
  // end
  return client;
}

const counted = (usage) => [
  usage.prompt_tokens,
  usage.completion_tokens,
  usage.prompt_tokens_details.cached_tokens,
];

async function whole(model, key) {
  const answer = await client(key).chat.completions.create({ model, messages });
  return { text: answer.choices[0].message.content, usage: counted(answer.usage) };
}

async function stream(model, key) {
  const asked = { model, messages, stream: true, stream_options: { include_usage: true } };
  const text = [];
  let usage;
  for await (const chunk of await client(key).chat.completions.create(asked)) {
    usage = chunk.usage ?? usage;
    if (chunk.choices[0]?.delta.content) text.push(chunk.choices[0].delta.content);
  }
  return { text: text.join(""), pieces: text.length, usage: counted(usage) };
}

async function called(ask) {
  const first = await ask(messages);
  const call = first.tool_calls[0];
  const second = await ask([...messages, first, { role: "tool", tool_call_id: call.id, content: RESULT }]);
  return { tool: call.function.name, arguments: JSON.parse(call.function.arguments), text: second.content };
}

async function called_whole(model, key) {
  return called(async (messages) => {
    return (await client(key).chat.completions.create({ model, messages, tools })).choices[0].message;
  });
}

async function streamed_tools(model, key) {
  return called((messages) => client(key).chat.completions.stream({ model, messages, tools }).finalMessage());
}

async function structured(model, key) {
  const answer = await client(key).chat.completions.parse({ model, messages, response_format: schema });
  return { object: JSON.parse(answer.choices[0].message.content) };
}

async function thinking(model, key) {
  const { message } = (await client(key).chat.completions.create({ model, messages })).choices[0];
  return { thought: message.reasoning_content, text: message.content };
}

async function image(model, key) {
  const content = [
    { type: "text", text: "What colour?" },
    { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } },
  ];
  const answer = await client(key).chat.completions.create({ model, messages: [{ role: "user", content }] });
  return { text: answer.choices[0].message.content };
}

async function embeddings(model, key) {
  return { vector: [...(await client(key).embeddings.create({ model, input: HI })).data[0].embedding] };
}

async function models(model, key) {
  const found = [];
  for await (const one of client(key).models.list()) found.push(one.id);
  return { models: found };
}

await tell({ whole, stream, tools: called_whole, streamed_tools, structured, thinking, image, embeddings, models });
