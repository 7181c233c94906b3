import { createAnthropic } from "@ai-sdk/anthropic";
import { tellOf } from "./ai_sdk.mjs";
import { URL } from "./tell.mjs";

function modelOf(model, key) {
  // docs
  const anthropic = createAnthropic({ baseURL: `${URL}/v1`, apiKey: key });
  return anthropic(model);
  // end
}

await tellOf(modelOf, { providerOptions: { anthropic: { thinking: { type: "enabled", budgetTokens: 2000 } } } });
