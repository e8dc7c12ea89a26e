"""The original project's paths, as its web pages and testers call them; every figure is the service's own.

Its consensus server and its gateway wore these shapes. Errors are those of the one table (`errors.py`), with a
status that says what happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from sse_starlette import ServerSentEvent
from starlette.responses import JSONResponse, Response

from capibara_agents import templates
from capibara_agents.errors import BadQuestion, CapibaraError
from capibara_agents.http import openai_wire as wire
from capibara_agents.http.exchange import Exchange, answered, data, failure
from capibara_agents.http.house import House
from capibara_agents.http.legacy_shapes import chat_answer, consensus_answer, routing_info
from capibara_agents.outcome import Answer
from capibara_agents.route.table import LEVELS, TABLE
from capibara_agents.runnable import Event, read_messages
from capibara_agents.settings import ModelSpec
from capibara_agents.texts import sentence
from capibara_agents.types import Request, ServerState, TemplateName, Tier, Voting

MAX_PROMPT_CHARS = 1_000_000


class ChatBody(BaseModel):
    """POST /api/chat and /api/generate. `use_semantic_router: false` without a model asks the first of the order."""

    model_config = ConfigDict(extra="ignore", strict=True)

    message: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS, validation_alias=AliasChoices("message", "prompt"))
    model: str | None = None
    use_semantic_router: bool = True
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    stream: bool = False


class TextBody(BaseModel):
    """A text to be classified."""

    model_config = ConfigDict(extra="ignore", strict=True)

    query: str = Field(
        min_length=1, max_length=MAX_PROMPT_CHARS, validation_alias=AliasChoices("query", "prompt", "message", "text")
    )


class ConsensusBody(BaseModel):
    """POST /api/consensus/query."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS, validation_alias=AliasChoices("prompt", "query"))
    template: str = "general"
    models: list[str] | None = Field(None, min_length=1)
    voting: Voting = "weighted"
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)


def router(house: House) -> APIRouter:
    """/health, /stats, /api/generate, /api/chat, /api/classify, /api/router/*, /api/consensus/*."""
    routes = APIRouter(tags=["original"])

    @routes.get("/health")
    async def health() -> JSONResponse:
        """The state of the fleet as it is; nothing is generated for it (/health/ready does that)."""
        return health_of(house)

    @routes.get("/stats")
    async def stats() -> dict[str, Any]:
        """What was answered since the service started, by model."""
        return stats_of(house)

    @routes.post("/api/chat")
    @routes.post("/api/generate")
    async def chat(body: ChatBody, http: HttpRequest) -> Response:
        """One message, answered by the model that suits it, or by the one that is named."""
        exchange = Exchange(house, read_messages(body.message), chat_request(body, house), ChatShape())
        return await (exchange.stream() if body.stream else exchange.whole(http))

    @routes.post("/api/classify")
    async def classify(body: TextBody) -> dict[str, Any]:
        """What a text asks for, and who would answer; nothing is generated."""
        shown = house.explain(read_messages(body.query), Request())
        return {**shown, "model_tier": shown["tier"]}

    @routes.get("/api/router/info")
    async def router_info() -> dict[str, Any]:
        """The routes there are and the model each leads to, by how hard the question is."""
        return routes_of(house)

    @routes.get("/api/router/test")
    async def router_test(query: Annotated[str, Query(min_length=1, max_length=10_000)]) -> dict[str, Any]:
        """The decision on one query; nothing is generated."""
        return {"query": query, "decision": decision_of(house, query)}

    @routes.post("/api/router/test")
    async def router_test_post(
        body: TextBody | None = None, query: Annotated[str | None, Query(min_length=1, max_length=10_000)] = None
    ) -> dict[str, Any]:
        """The decision on one query, in the body or, as the original had it, in the URL."""
        text = body.query if body is not None else query
        if text is None:
            raise BadQuestion("query is missing.", param="query")
        return {"query": text, "decision": decision_of(house, text)}

    return routes


def consensus_router(house: House) -> APIRouter:
    """POST /api/consensus/query; GET /api/consensus/models, templates, config, health."""
    routes = APIRouter(prefix="/api/consensus", tags=["original"])

    @routes.post("/query")
    async def query(body: ConsensusBody, http: HttpRequest) -> Response:
        """Several models answer and vote."""
        started = time.perf_counter()
        answer = await answered(house, read_messages(body.prompt), consensus_request(body, house), http)
        if answer is None:
            return Response(status_code=499)
        told = consensus_answer(answer, method=body.voting, duration_s=time.perf_counter() - started)
        return JSONResponse(told, headers=wire.decision_headers(answer))

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The models that can vote."""
        return models_of(house)

    @routes.get("/templates")
    async def prompt_templates() -> dict[str, Any]:
        """The templates a query may name, with their text."""
        return {name: template_of(name, house) for name in template_names()}

    @routes.get("/config")
    async def config() -> dict[str, Any]:
        """How votes are held."""
        return config_of(house)

    @routes.get("/health")
    async def health() -> JSONResponse:
        """Each model's state, and whether enough of them can vote."""
        states = {m.id: {"status": health_word(m.state), "state": m.state} for m in house.fleet.snapshot().models}
        able = sum(state["status"] != "unhealthy" for state in states.values())
        ok = able >= Request().min_voters
        body = {
            "status": "healthy" if ok else "unhealthy",
            "consensus_enabled": house.settings.routing.consensus,
            "active_models": able,
            "models_health": states,
        }
        return JSONResponse(body, 200 if ok else 503, None if ok else {"retry-after": "5"})

    return routes


# ---------------------------------------------------------------- requests


def chat_request(body: ChatBody, house: House) -> Request:
    """How a message is to be answered. A model that is named answers; otherwise the router decides."""
    model = body.model or ("capibara" if body.use_semantic_router else first_model(house).id)
    sampling = {"temperature": body.temperature, "max_tokens": body.max_tokens}
    return wire.request_of({"model": model, "stream": "eager" if body.stream else "off", "sampling": sampling})


def consensus_request(body: ConsensusBody, house: House) -> Request:
    """A vote. UnknownModel, or BadQuestion for a template or voting that does not exist."""
    voters = [house.settings.spec(name).id for name in body.models or ()]
    sampling = {"temperature": body.temperature, "max_tokens": body.max_tokens}
    count = {"min_voters": min(2, len(voters)), "max_voters": min(5, len(voters))} if voters else {}
    values = {"mode": "consensus", "voters": voters, "template": body.template, "voting": body.voting, **count}
    try:
        return wire.request_of({**values, "sampling": sampling})
    except BadQuestion as error:
        # Here the options stand in the body itself.
        param = (error.param or "").removeprefix("capibara.")
        raise BadQuestion(error.message.replace("capibara.", ""), param=param, code=error.reason) from None


def first_model(house: House) -> ModelSpec:
    """The model of the first tier of the fallback order that has one."""
    order: list[Tier] = list(house.settings.routing.fallback_order)
    specs = house.settings.models
    return min(specs, key=lambda spec: order.index(spec.tier) if spec.tier in order else len(order))


# ---------------------------------------------------------------- what is told


def health_of(house: House) -> JSONResponse:
    """200 while a model can answer; 503 when all have failed for good."""
    models = house.fleet.snapshot().models
    services = {model.id: health_word(model.state) for model in models}
    bad = sum(word == "unhealthy" for word in services.values())
    status = "healthy" if bad == 0 else "degraded" if bad < len(models) else "unhealthy"
    body = {
        "status": status,
        "timestamp": datetime.now(UTC).isoformat(),
        "services": services,
        "models_ready": [model.id for model in models if model.state is ServerState.ready],
        "stand_in": any(spec.stand_in for spec in house.settings.models),
        "semantic_router": {"enabled": True, "status": "active"},
    }
    return JSONResponse(
        body, 503 if status == "unhealthy" else 200, {"retry-after": "5"} if bad == len(models) else None
    )


def health_word(state: ServerState) -> str:
    """A stopped model is well: it is loaded when it is needed."""
    words = {ServerState.failed: "unhealthy", ServerState.ready: "healthy"}
    return words.get(state, "idle" if state is ServerState.stopped else "starting")


def stats_of(house: House) -> dict[str, Any]:
    """Counters since the start; a mean only where there is something to divide by."""
    metering = house.metering
    models: dict[str, dict[str, Any]] = {}
    for spec in house.settings.models:
        tally = metering.tallies.get(spec.id)
        asked = tally.answers + tally.errors if tally else 0
        models[spec.id] = {
            "requests": asked,
            "errors": tally.errors if tally else 0,
            "prompt_tokens": tally.prompt_tokens if tally else 0,
            "completion_tokens": tally.completion_tokens if tally else 0,
            "average_latency_ms": round(1000 * tally.seconds / asked, 1) if tally and asked else None,
        }
    return {
        "uptime_seconds": round(time.time() - metering.started_s, 1),
        "total_requests": metering.runs,
        "unanswered_requests": metering.unanswered,
        "degraded_requests": metering.degraded,
        "total_tokens": sum(m["prompt_tokens"] + m["completion_tokens"] for m in models.values()),
        "models": models,
    }


def routes_of(house: House) -> dict[str, Any]:
    """The table of the router over the models that are configured."""
    by_tier = {spec.tier: spec.id for spec in reversed(house.settings.models)}
    mapping = {
        domain: {level: by_tier.get(tier) for level, tier in zip(LEVELS, tiers, strict=True)}
        for domain, tiers in TABLE.items()
    }
    return {
        "enabled": True,
        "status": "active",
        "routes": list(TABLE),
        "model_mapping": mapping,
        "exemplars": house.exemplars.count(),
        "fallback_order": list(house.settings.routing.fallback_order),
    }


def decision_of(house: House, text: str) -> dict[str, Any]:
    """The routing of one text, in the original's words."""
    messages = read_messages(text)
    classification, plan = house.decide(messages, Request())
    return {**routing_info(classification, plan), "fallback": False, "mode": plan.mode, "models": list(plan.models)}


def models_of(house: House) -> dict[str, Any]:
    """The voters with what they are for."""
    states = {model.id: model.state for model in house.fleet.snapshot().models}
    models = {
        spec.id: {
            "name": spec.id,
            "tier": spec.tier,
            "aliases": list(spec.aliases),
            "weights": spec.weights_name,
            "stand_in": spec.stand_in,
            "max_tokens": spec.max_tokens,
            "state": states.get(spec.id, ServerState.stopped),
        }
        for spec in house.settings.models
    }
    active = [model_id for model_id, state in states.items() if state is not ServerState.failed]
    return {
        "total_models": len(models),
        "active_models": len(active),
        "models_list": active,
        "consensus_enabled": house.settings.routing.consensus,
        "models": models,
    }


def template_names() -> list[str]:
    """The templates a question may name."""
    return list(get_args(TemplateName))


def template_of(name: str, house: House) -> dict[str, Any]:
    """One template: its name and what it is for in the service's language, its text, its variables."""
    language = house.settings.text_language
    template = templates.read(name)
    return {
        "name": sentence(f"template.{name}", language),
        "description": sentence(f"template.{name}.what", language),
        "system_prompt": template.text,
        "variables": list(template.variables),
    }


def config_of(house: House) -> dict[str, Any]:
    """The defaults of a vote."""
    usual = Request()
    return {
        "enabled": house.settings.routing.consensus,
        "min_models": usual.min_voters,
        "max_models": usual.max_voters,
        "voting_method": usual.voting,
        "voting_methods": ["simple", "weighted", "confidence"],
        "max_attempts": house.settings.routing.max_attempts,
        "fallback_order": list(house.settings.routing.fallback_order),
        "fallback_model": first_model(house).id,
    }


class ChatShape:
    """The original's answer to a message; pieces `{"response", "done": false}` in a stream."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def whole(self, answer: Answer) -> dict[str, Any]:
        return chat_answer(answer, latency_s=time.perf_counter() - self._started)

    def opening(self) -> Iterator[ServerSentEvent]:
        yield from ()

    def delta(self, event: Event) -> Iterator[ServerSentEvent]:
        if event["content"]:
            yield data({"response": event["content"], "model": event["model"], "done": False})

    def closing(self, answer: Answer, *, said: bool) -> Iterator[ServerSentEvent]:
        last = self.whole(answer)
        if said:
            last["response"] = ""
        yield data({**last, "done": True})

    def broken(self, error: CapibaraError) -> Iterator[ServerSentEvent]:
        yield failure(error)
