// What users do with OpenAI's own client for Node; prints the name of each thing that worked.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const chat = (content, rest = {}) =>
  client.chat.completions.create({ model: "capibara", messages: [{ role: "user", content }], ...rest });

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
assert(ids.includes("capibara"));
console.log("models");

const got = await chat("What is the capital of France?");
assert.match(got.choices[0].message.content, /Paris/);
console.log("chat");

let text = "";
for await (const chunk of await chat("Count from 1 to 5.", { stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(text, "1, 2, 3, 4, 5");
console.log("stream");

const called = (await chat("What is the weather in Paris and Madrid?", { tools })).choices[0].message;
assert.deepEqual(called.tool_calls.map((c) => JSON.parse(c.function.arguments).city), ["Paris", "Madrid"]);
const runner = client.chat.completions.runTools({
  model: "capibara",
  messages: [{ role: "user", content: "What is the weather in Paris?" }],
  tools: [{ type: "function", function: { name: "get_weather", parameters, parse: JSON.parse, function: ({ city }) => `rain in ${city}` } }],
});
assert.match(await runner.finalContent(), /rain in Paris/);
console.log("tools");

const schema = { type: "object", properties: { name: { type: "string" } }, required: ["name"], additionalProperties: false };
const made = await chat("Invent.", { response_format: { type: "json_schema", json_schema: { name: "p", schema, strict: true } } });
assert.deepEqual(Object.keys(JSON.parse(made.choices[0].message.content)), ["name"]);
console.log("json");

await assert.rejects(chat("x", { model: "nobody" }), (e) => e instanceof OpenAI.NotFoundError && e.param === "model");
await assert.rejects(chat("x", { temperature: 7 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "temperature");
console.log("errors");

const stream = client.responses.stream({ model: "capibara", input: "What is the capital of France?" });
const final = await stream.finalResponse();
assert.match(final.output_text, /Paris/);
const next = await client.responses.create({ model: "capibara", input: "Say hi.", previous_response_id: final.id });
assert.equal(next.status, "completed");
console.log("responses");

const vector = await client.embeddings.create({ model: "capibara", input: "hola" });
assert.equal(vector.data[0].embedding.length, 512);
console.log("embeddings");
