"""OpenAI's Responses: response objects and their events out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from capibara_agents.errors import CapibaraError
from capibara_agents.http.errors import body_of
from capibara_agents.http.responses_wire import Item, ResponseBody
from capibara_agents.outcome import Answer
from capibara_agents.runnable import Event
from capibara_agents.types import Candidate

# What llama-server samples with where a request says nothing (its own defaults).
DEFAULTS = {"temperature": 0.8, "top_p": 0.95, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class Draft:
    """One response object as it comes into being; its events carry growing sequence numbers."""

    def __init__(self, body: ResponseBody, *, id: str, created_s: int, trace: bool) -> None:
        self.id = id
        self._trace = trace
        self._number = -1
        self._places: dict[str, int] = {}
        """Item id -> output index, in the order in which the items were opened."""
        self._base = _frame(body, id, created_s)

    def finished(self, answer: Answer, *, at_s: int) -> dict[str, Any]:
        """The whole response object, completed at `at_s`."""
        candidate = answer.candidate
        short = candidate.finish_reason == "length"
        return {
            **self._base,
            "status": "incomplete" if short else "completed",
            "completed_at": None if short else at_s,
            "incomplete_details": {"reason": "max_output_tokens"} if short else None,
            "model": candidate.model,
            "output": self._items(candidate),
            "usage": _usage(candidate),
            **({"capibara": answer.trace()} if self._trace else {}),
        }

    def opened(self) -> Iterator[Event]:
        """Before any text."""
        yield self._event("response.created", response=self._base)
        yield self._event("response.in_progress", response=self._base)

    def piece(self, delta: Event) -> Iterator[Event]:
        """The events of one piece of the answer."""
        if delta["reasoning"]:
            yield from self._thought(delta["reasoning"])
        if delta["content"]:
            yield from self._said(delta["content"], delta["logprobs"])
        for call in delta["tool_calls"]:
            yield from self._called(call)

    def closed(self, answer: Answer, *, at_s: int) -> Iterator[Event]:
        """Everything that is open is done, then the response is."""
        for item in self._items(answer.candidate):
            yield from self._done(item)
        kind = "response.incomplete" if answer.candidate.finish_reason == "length" else "response.completed"
        yield self._event(kind, response=self.finished(answer, at_s=at_s))

    def broken(self, error: CapibaraError) -> Event:
        """The last event of a stream that could not be finished."""
        told = body_of(error)["error"]
        failed = {**self._base, "status": "failed", "error": {"code": "server_error", "message": told["message"]}}
        return self._event("response.failed", response=failed)

    def _items(self, candidate: Candidate) -> list[Item]:
        """The output items, in the order in which a stream has opened them."""
        items = items_of(candidate, self.id)
        last = len(self._places)
        return sorted(items, key=lambda item: self._places.get(item["id"], last))

    def _open(self, item: Item) -> Iterator[Event]:
        """Added once; pieces that follow find its place."""
        if item["id"] in self._places:
            return
        self._places[item["id"]] = len(self._places)
        fresh = {**item, "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=self._places[item["id"]], item=fresh)
        if item["type"] == "message":
            yield self._event("response.content_part.added", **self._at(item["id"]), part=_part_of(""))

    def _at(self, item_id: str) -> dict[str, Any]:
        return {"item_id": item_id, "output_index": self._places[item_id], "content_index": 0}

    def _thought(self, text: str) -> Iterator[Event]:
        item_id = f"rs_{self.id}"
        yield from self._open({**_reasoning(self.id, ""), "content": []})
        yield self._event("response.reasoning_text.delta", **self._at(item_id), delta=text)

    def _said(self, text: str, logprobs: tuple[dict[str, Any], ...]) -> Iterator[Event]:
        item_id = f"msg_{self.id}"
        yield from self._open({**_message(self.id, ""), "content": []})
        yield self._event("response.output_text.delta", **self._at(item_id), delta=text, logprobs=list(logprobs))

    def _called(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call["function"]
        item = _call(self.id, call.get("index") or 0, call.get("id"), function.get("name") or "", "")
        yield from self._open(item)
        if function.get("arguments"):
            at = {"item_id": item["id"], "output_index": self._places[item["id"]]}
            yield self._event("response.function_call_arguments.delta", **at, delta=function["arguments"])

    def _done(self, item: Item) -> Iterator[Event]:
        new = item["id"] not in self._places
        if item["type"] == "reasoning":
            text = item["content"][0]["text"]
            if new:
                yield from self._thought(text)
            yield self._event("response.reasoning_text.done", **self._at(item["id"]), text=text)
        elif item["type"] == "message":
            part = item["content"][0]
            if new:
                yield from self._said(part["text"], part["logprobs"])
            at = self._at(item["id"])
            yield self._event("response.output_text.done", **at, text=part["text"], logprobs=part["logprobs"])
            yield self._event("response.content_part.done", **at, part=part)
        else:
            yield from self._open({**item, "arguments": ""})
            at = {"item_id": item["id"], "output_index": self._places[item["id"]]}
            if new and item["arguments"]:
                yield self._event("response.function_call_arguments.delta", **at, delta=item["arguments"])
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **at, **done)
        yield self._event("response.output_item.done", output_index=self._places[item["id"]], item=item)

    def _event(self, kind: str, **values: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **values}


def items_of(candidate: Candidate, response_id: str) -> list[Item]:
    """The output items of an answer: what was thought, its text, and its calls of functions."""
    items: list[Item] = []
    if candidate.reasoning:
        items.append(_reasoning(response_id, candidate.reasoning))
    if candidate.content or not candidate.tool_calls:
        items.append(_message(response_id, candidate.content, candidate.logprobs))
    for index, call in enumerate(candidate.tool_calls):
        function = call["function"]
        items.append(_call(response_id, index, call.get("id"), function["name"], function["arguments"]))
    return items


def _reasoning(response_id: str, text: str) -> Item:
    return {
        "id": f"rs_{response_id}",
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def _message(response_id: str, text: str, logprobs: tuple[dict[str, Any], ...] = ()) -> Item:
    return {
        "id": f"msg_{response_id}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [_part_of(text, logprobs)],
    }


def _part_of(text: str, logprobs: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def _call(response_id: str, index: int, call_id: str | None, name: str, arguments: str) -> Item:
    return {
        "id": f"fc_{index}_{response_id}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id or f"call_{index}_{response_id}",
        "name": name,
        "arguments": arguments,
    }


def _usage(candidate: Candidate) -> dict[str, Any]:
    used = candidate.usage
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens or 0},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens or 0},
        "total_tokens": used.total_tokens,
    }


def _frame(body: ResponseBody, id: str, created_s: int) -> dict[str, Any]:
    """What a response object says before there is an answer."""
    sampling = {
        name: default if getattr(body, name) is None else getattr(body, name) for name, default in DEFAULTS.items()
    }
    return {
        "id": id,
        "object": "response",
        "created_at": created_s,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": bool(body.store),
        **sampling,
        "text": {"format": (body.text.format if body.text else None) or {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": [_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "truncation": "disabled",
        "usage": None,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"description": None, "parameters": None, "strict": False, **tool}
