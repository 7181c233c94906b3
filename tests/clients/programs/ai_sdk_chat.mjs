import { createOpenAI } from "@ai-sdk/openai";
import { tellOf } from "./ai_sdk.mjs";
import { URL } from "./tell.mjs";

function modelOf(model, key) {
  // docs
  const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey: key });
  return openai.chat(model);
  // end
}

await tellOf(modelOf);
