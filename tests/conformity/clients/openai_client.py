"""What users do with OpenAI's own client; prints the name of each thing that worked."""

import json

import openai

client = openai.OpenAI(max_retries=0)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def user(text):
    return [{"role": "user", "content": text}]


def chat(text, **rest):
    return client.chat.completions.create(model="capibara", messages=user(text), **rest)


assert {"capibara", "phi-4-mini"} <= {model.id for model in client.models.list()}
assert client.models.retrieve("capibara").id == "capibara"
print("models")

got = chat("What is the capital of France?", seed=1, temperature=0, logprobs=True, top_logprobs=2)
assert "Paris" in got.choices[0].message.content
assert got.choices[0].finish_reason == "stop"
assert len(got.choices[0].logprobs.content[0].top_logprobs) == 2
assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
assert chat("Write an essay.", max_completion_tokens=3).choices[0].finish_reason == "length"
assert len(chat("What is the capital of France?", n=3).choices) == 3
assert chat("Think: what is 17 * 3?").choices[0].message.reasoning_content
image = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"},
}
seen = chat([{"type": "text", "text": "What is this?"}, image])
assert seen.model == "gemma-3-27b-it"
assert "PNG of 1 by 1" in seen.choices[0].message.content
print("chat")

chunks = list(chat("Count from 1 to 5.", stream=True, stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "1, 2, 3, 4, 5"
assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
assert chunks[-1].usage.completion_tokens > 0
assert len(chunks) > 5
print("stream")

question = "What is the weather in Paris and Madrid?"
calls = chat(question, tools=[TOOL]).choices[0].message.tool_calls
assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Madrid"]
assert len(chat(question, tools=[TOOL], parallel_tool_calls=False).choices[0].message.tool_calls) == 1
pieces = {}
for chunk in chat(question, tools=[TOOL], stream=True):
    for call in chunk.choices[0].delta.tool_calls or ():
        name, arguments = pieces.get(call.index, ("", ""))
        pieces[call.index] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
assert [json.loads(arguments)["city"] for _, arguments in pieces.values()] == ["Paris", "Madrid"]
assert {name for name, _ in pieces.values()} == {"get_weather"}
history = [
    *user(question),
    {"role": "assistant", "content": None, "tool_calls": [call.model_dump() for call in calls]},
    *({"role": "tool", "tool_call_id": call.id, "content": f"sun {call.id}"} for call in calls),
]
told = client.chat.completions.create(model="capibara", messages=history, tools=[TOOL])
assert calls[-1].id in told.choices[0].message.content
print("tools")

made = chat("Invent.", response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}})
assert set(json.loads(made.choices[0].message.content)) == {"name", "age"}
assert isinstance(
    json.loads(chat("Invent JSON.", response_format={"type": "json_object"}).choices[0].message.content), dict
)
print("json")

for kind, status, param, rest in (
    (openai.NotFoundError, 404, "model", {"model": "nobody"}),
    (openai.BadRequestError, 400, "temperature", {"temperature": 7}),
    (openai.BadRequestError, 400, "n", {"n": 4}),
    (openai.BadRequestError, 400, "top_k", {"extra_body": {"top_k": 1}}),
):
    try:
        client.chat.completions.create(**{"model": "capibara", "messages": user("x"), **rest})
    except kind as error:
        assert (error.status_code, error.param) == (status, param), error
    else:
        raise AssertionError(rest)
try:
    openai.OpenAI(api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError as error:
    assert error.code == "invalid_api_key"
else:
    raise AssertionError("a wrong key was taken")
print("errors")

first = client.responses.create(model="capibara", input="My name is Ada.", instructions="Be brief.")
second = client.responses.create(model="capibara", input="What is my name?", previous_response_id=first.id)
assert second.output_text == "Ada"
events = list(client.responses.create(model="capibara", input="Think: what is 17 * 3?", stream=True))
assert [event.sequence_number for event in events] == list(range(len(events)))
assert events[-1].type == "response.completed"
assert [item.type for item in events[-1].response.output] == ["reasoning", "message"]
function = {"type": "function", **TOOL["function"], "strict": False}
called = client.responses.create(model="capibara", input=question, tools=[function])
assert [item.type for item in called.output] == ["function_call", "function_call"]
outputs = [{"type": "function_call_output", "call_id": item.call_id, "output": "snow"} for item in called.output]
answered = client.responses.create(model="capibara", input=outputs, previous_response_id=called.id, tools=[function])
assert "snow" in answered.output_text
kept = client.responses.create(model="capibara", input="Say hi.", store=True)
assert client.responses.retrieve(kept.id).output_text == kept.output_text
client.responses.delete(kept.id)
print("responses")

vectors = client.embeddings.create(model="capibara", input=["hola", "adiós"]).data
assert [len(one.embedding) for one in vectors] == [512, 512]
print("embeddings")

assert client.completions.create(model="capibara", prompt="The capital of France is").choices[0].text
print("completions")
