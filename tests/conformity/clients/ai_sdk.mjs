// What users do with Vercel's AI SDK; prints the name of each thing that worked.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = process.env.OPENAI_BASE_URL;
const apiKey = process.env.OPENAI_API_KEY;
const capibara = createOpenAICompatible({ name: "capibara", baseURL, apiKey, supportsStructuredOutputs: true, includeUsage: true });
const model = capibara("capibara");
const weather = tool({
  description: "Weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `rain in ${city}`,
});

const listed = await (await fetch(`${baseURL}/models`, { headers: { authorization: `Bearer ${apiKey}` } })).json();
assert(listed.data.length >= 8);
console.log("models");

const said = await generateText({ model, prompt: "What is the capital of France?", maxRetries: 0 });
assert.match(said.text, /Paris/);
assert.equal(said.finishReason, "stop");
console.log("chat");

const streamed = streamText({ model, prompt: "Count from 1 to 5." });
let text = "";
for await (const piece of streamed.textStream) text += piece;
assert.equal(text, "1, 2, 3, 4, 5");
assert((await streamed.usage).outputTokens > 0);
console.log("stream");

const used = await generateText({
  model,
  prompt: "What is the weather in Paris?",
  tools: { get_weather: weather },
  stopWhen: stepCountIs(3),
});
assert.match(used.text, /rain in Paris/);
console.log("tools");

const person = await generateText({
  model,
  prompt: "Invent a person.",
  output: Output.object({ schema: z.object({ name: z.string(), age: z.number().int() }) }),
});
assert.equal(person.output.age, 36);
console.log("json");

await assert.rejects(generateText({ model: capibara("nobody"), prompt: "x", maxRetries: 0 }), (e) => e.statusCode === 404);
console.log("errors");

const openai = createOpenAI({ baseURL, apiKey });
const answered = await generateText({ model: openai("capibara"), prompt: "What is the capital of France?" });
assert.match(answered.text, /Paris/);
const worked = await generateText({
  model: openai("capibara"),
  prompt: "What is the weather in Paris?",
  tools: { get_weather: weather },
  stopWhen: stepCountIs(3),
});
assert.match(worked.text, /rain in Paris/);
console.log("responses");
