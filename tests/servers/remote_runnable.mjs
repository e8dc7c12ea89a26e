// @langchain/core's RemoteRunnable against a service: one JSON object with what each call gave.
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import { RemoteRunnable } from "@langchain/core/runnables/remote";
import lz from "lz-string";

const url = `${process.argv[2]}/capibara`;
const remote = new RemoteRunnable({ url, options: { timeout: 240000 } });
const sampling = { max_tokens: 6, temperature: 0 };
const ask = (text, options = {}) => ({ messages: [new HumanMessage(text)], sampling, ...options });
// The grammar leaves one answer, whatever the model would have said.
const forced = (word) => {
  const properties = { said: { enum: [word] } };
  const schema = { type: "object", properties, required: ["said"], additionalProperties: false };
  const response_format = { type: "json_schema", json_schema: { name: "said", schema } };
  return ask(ES, { sampling: { max_tokens: 64, temperature: 0, response_format } });
};
const ES = "¿Cuál es la capital de Perú?";
const EN = "What is the capital of Peru?";
const found = {};

async function failure(call) {
  try {
    return { error: null, value: await call() };
  } catch (error) {
    return { error: String(error.message) };
  }
}

async function collected(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const answer = await remote.invoke(ask(ES));
found.invoke = { isMessage: answer instanceof AIMessage, content: answer.content };
const roles = { messages: [{ role: "system", content: "Be brief." }, { role: "user", content: EN }], sampling };
found.roles = (await remote.invoke(roles)).content;
found.batch = (await remote.batch([forced("uno"), forced("two")])).map((message) => JSON.parse(message.content).said);
found.batchConfig = (await remote.batch([ask(ES), ask(EN)], [{ tags: ["a"] }, { tags: ["b"] }])).length;

const pieces = await collected(await remote.stream(forced("tres")));
const streamed = pieces.map((piece) => piece.content).join("");
found.stream = { count: pieces.length, said: JSON.parse(streamed).said };

const events = await collected(remote.streamEvents(ask(ES), { version: "v2" }));
found.events = {
  kinds: [...new Set(events.map((event) => event.event))],
  names: [...new Set(events.map((event) => event.name))],
  first: events[0].event,
  last: events[events.length - 1].event,
};
const only = await collected(remote.streamEvents(ask(ES), { version: "v2" }, { includeTypes: ["chat_model"] }));
found.filtered = [...new Set(only.map((event) => event.event))];

const patches = await collected(remote.streamLog(ask(ES)));
const last = patches[patches.length - 1];
found.log = { count: patches.length, ops: last.ops.length, hasOutput: JSON.stringify(patches).includes("final_output") };

found.kwargs = (await failure(() => remote.bind({ model: "no-such-model" }).invoke(ask(EN)))).error;
found.configurable = (await failure(() => remote.invoke(ask(EN), { configurable: { mode: "guess" } }))).error;
found.unknownModel = (await failure(() => remote.invoke(ask(EN, { model: "gpt-4" })))).error;
found.streamError = (await failure(async () => collected(await remote.stream(ask(EN, { model: "gpt-4" }))))).error;
found.eventsError = (await failure(() => collected(remote.streamEvents(ask(EN, { mode: "guess" }), { version: "v2" })))).error;
found.empty = (await failure(() => remote.invoke({ messages: [] }))).error;

const hash = lz.compressToEncodedURIComponent(JSON.stringify({ configurable: { model: "gpt-4" } }));
const packed = new RemoteRunnable({ url: `${url}/c/${hash}` });
found.packedWrong = (await failure(() => packed.invoke(ask(EN)))).error;
const good = lz.compressToEncodedURIComponent(JSON.stringify({ configurable: { mode: "single" }, tags: ["ñandú"] }));
const configured = new RemoteRunnable({ url: `${url}/c/${good}`, options: { timeout: 240000 } });
found.packed = (await configured.invoke(ask(EN))).content;
found.packedStream = (await collected(await configured.stream(ask(EN)))).length;

const gone = new AbortController();
found.aborted = (
  await failure(async () => {
    // Without the end-of-answer token there is a middle to leave in.
    const long = { model: "phi-4-mini", sampling: { max_tokens: 2000, logit_bias: { 2: -100 } } };
    for await (const _ of await remote.stream(ask(ES, long), { signal: gone.signal })) {
      gone.abort();
    }
  })
).error;
console.log(JSON.stringify(found));
