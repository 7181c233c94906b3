import { createOpenAI } from "@ai-sdk/openai";
import { tellOf } from "./ai_sdk.mjs";
import { URL } from "./tell.mjs";

function modelOf(model, key) {
  // docs
  const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey: key });
  return openai(model); // asks by Responses; openai.chat(model) by chat completions
  // end
}

const embedderOf = (model, key) => createOpenAI({ baseURL: `${URL}/v1`, apiKey: key }).embedding(model);
await tellOf(modelOf, { providerOptions: { openai: { reasoningSummary: "auto" } } }, embedderOf);
