// The same as tell.py: how a client program is asked and answers.
import { appendFileSync, readFileSync } from "node:fs";

export const URL = process.env.GATEWAY_URL;
export const KEY = process.env.GATEWAY_KEY;
export const PNG = process.env.PNG;

export const HI = "Hello!";
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" }, celsius: { type: "integer" } },
  required: ["city", "celsius"],
  additionalProperties: false,
};
export const CITY = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const REMEMBER = "Remember violet.";
export const WHICH = "Which colour was it?";
export const RESULT = "rain, 4 degrees";

export async function tell(functions) {
  for (const question of JSON.parse(readFileSync(0, "utf8"))) {
    const ask = functions[question.ask] ?? functions[question.otherwise];
    let answer = { missing: true };
    try {
      if (ask) answer = { saw: await ask(question.model, question.key) };
    } catch (error) {
      answer = { raised: described(error) };
    }
    appendFileSync(process.env.TOLD, JSON.stringify({ ...question, ...answer }) + "\n");
  }
  process.exit(0);
}

function described(error) {
  const last = error.lastError ?? error; // the AI SDK's RetryError holds what was raised each time
  const headers = last.headers ?? last.responseHeaders;
  return {
    type: error.constructor.name,
    status: last.status ?? last.statusCode ?? null,
    retry_after: headers?.get?.("retry-after") ?? headers?.["retry-after"] ?? null,
    message: String(error).slice(0, 400),
  };
}
