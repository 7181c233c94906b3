// What is the same for every provider of the AI SDK.
import { Output, embed, generateText, isStepCount, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { HI, PNG, REMEMBER, RESULT, WHICH, tell } from "./tell.mjs";

const weather = tool({
  description: "Tell the weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async () => RESULT,
});
const tools = { weather };

const counted = (usage) => [usage.inputTokens, usage.outputTokens, usage.inputTokenDetails.cacheReadTokens ?? null];

export async function tellOf(modelOf, thinks, embedderOf) {
  async function whole(model, key) {
    const answer = await generateText({ model: modelOf(model, key), prompt: HI });
    return { text: answer.text, usage: counted(answer.usage) };
  }

  async function streamed(asked) {
    let failed;
    const answer = streamText({ ...asked, onError: ({ error }) => (failed = error) });
    const pieces = [];
    for await (const piece of answer.textStream) pieces.push(piece);
    if (failed) throw failed; // the AI SDK hands errors to `onError`
    return [answer, pieces];
  }

  async function stream(model, key) {
    const [answer, pieces] = await streamed({ model: modelOf(model, key), prompt: HI });
    return { text: pieces.join(""), pieces: pieces.length, usage: counted(await answer.usage) };
  }

  const stopWhen = (stepCountIs ?? isStepCount)(3);

  function called(steps, text) {
    const call = steps[0].toolCalls[0];
    return { tool: call.toolName, arguments: call.input, text };
  }

  async function called_whole(model, key) {
    const answer = await generateText({ model: modelOf(model, key), prompt: HI, tools, stopWhen });
    return called(answer.steps, answer.text);
  }

  async function streamed_tools(model, key) {
    const [answer] = await streamed({ model: modelOf(model, key), prompt: HI, tools, stopWhen });
    return called(await answer.steps, await answer.text);
  }

  async function structured(model, key) {
    const schema = z.object({ city: z.string(), celsius: z.number().int() });
    const answer = await generateText({ model: modelOf(model, key), prompt: HI, output: Output.object({ schema }) });
    return { object: answer.output };
  }

  async function thinking(model, key) {
    const answer = await generateText({ model: modelOf(model, key), prompt: HI, ...thinks });
    return { thought: answer.reasoningText, text: answer.text };
  }

  async function image(model, key) {
    const file = { type: "file", data: Buffer.from(PNG, "base64"), mediaType: "image/png" };
    const content = [{ type: "text", text: "What colour?" }, file];
    const answer = await generateText({ model: modelOf(model, key), messages: [{ role: "user", content }] });
    return { text: answer.text };
  }

  async function embeddings(model, key) {
    return { vector: (await embed({ model: embedderOf(model, key), value: HI })).embedding };
  }

  async function follow(model, key) {
    const first = await generateText({ model: modelOf(model, key), prompt: REMEMBER });
    const providerOptions = { openai: { previousResponseId: first.providerMetadata.openai.responseId } };
    return { text: (await generateText({ model: modelOf(model, key), prompt: WHICH, providerOptions })).text };
  }

  const features = { whole, stream, tools: called_whole, streamed_tools, structured, image };
  if (thinks) features.thinking = thinking;
  if (embedderOf) Object.assign(features, { embeddings, follow });
  await tell(features);
}
