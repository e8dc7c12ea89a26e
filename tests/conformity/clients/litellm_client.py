"""What users do with LiteLLM as a client; prints the name of each thing that worked."""

import json
import os

import litellm

litellm.suppress_debug_info = True
WHERE = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"], "max_retries": 0}


def chat(text, model="capibara", **rest):
    return litellm.completion(model=f"openai/{model}", messages=[{"role": "user", "content": text}], **WHERE, **rest)


assert "capibara" in litellm.get_valid_models(
    check_provider_endpoint=True, custom_llm_provider="openai", api_key=WHERE["api_key"], api_base=WHERE["api_base"]
)
print("models")
assert "Paris" in chat("What is the capital of France?").choices[0].message.content
print("chat")
assert "".join(c.choices[0].delta.content or "" for c in chat("Count from 1 to 5.", stream=True)) == "1, 2, 3, 4, 5"
print("stream")
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
# With tools it would look for its own gateway first, and for that import a package that it does not require.
said = chat("What is the weather in Paris and Madrid?", tools=tools, _skip_mcp_handler=True)
calls = said.choices[0].message.tool_calls
assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Madrid"]
print("tools")
made = chat("Invent.", response_format={"type": "json_object"})
assert isinstance(json.loads(made.choices[0].message.content), dict)
print("json")
for kind, rest in ((litellm.NotFoundError, {"model": "nobody"}), (litellm.BadRequestError, {"temperature": 7})):
    try:
        chat("x", **rest)
    except kind:
        continue
    raise AssertionError(rest)
print("errors")
