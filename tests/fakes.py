"""Stand-ins for what is outside the library: model servers, the fleet, the embedder, the classifier.

`Upstream` is a real HTTP server on loopback that answers chat completions from a script, so that models.py runs
with the real LiteLLM Router. Nothing here is random and nothing waits without being told to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from langchain_core.messages import BaseMessage

from capibara_agents.classify import Reading
from capibara_agents.conversations import Conversations
from capibara_agents.embedder import Vector
from capibara_agents.errors import StoreError
from capibara_agents.exemplars import ExemplarStore, shipped_exemplars
from capibara_agents.explain import explained
from capibara_agents.features import Features
from capibara_agents.graphs.capibara import Graph, build
from capibara_agents.journal import Journal
from capibara_agents.learning import Learning
from capibara_agents.metering import Metering
from capibara_agents.models import Models
from capibara_agents.outcomes import Outcome, Update, UpdateReport
from capibara_agents.runnable import GraphRunnable
from capibara_agents.services import Services
from capibara_agents.settings import Settings
from capibara_agents.stock import Stock
from capibara_agents.threads import Threads
from capibara_agents.types import (
    Classification,
    Endpoint,
    Expectation,
    FleetSnapshot,
    Language,
    ModelStatus,
    Plan,
    Request,
    Sampling,
    ServerState,
)

PHI, QWEN, MISTRAL, GEMMA, GPT = (
    "phi-4-mini",
    "qwen2.5-coder-1.5b",
    "mistral-7b-instruct-v0.2",
    "gemma-3-27b-it",
    "gpt-oss-20b",
)


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `break_after`, `stall_after` and `wait_after` count the pieces that are sent before it."""

    pieces: tuple[str, ...] = ("Hola.",)
    reasoning: tuple[str, ...] = ()
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str = "stop"
    prompt_tokens: int = 7
    cached_tokens: int | None = None
    logprob: float = -0.25
    status: int = 200
    message: str = "scripted failure"
    break_after: int | None = None
    stall_after: int | None = None
    wait_after: tuple[int, threading.Event] | None = None
    raw: bytes | None = None
    delay_s: float = 0.0
    reads: tuple[tuple[float, int, int], ...] = ()
    """Told before the answer: after so many seconds, so many tokens of the prompt are read, of so many."""

    def deltas(self) -> list[dict[str, Any]]:
        """The pieces in the order in which they are sent."""
        thoughts = [{"reasoning_content": text} for text in self.reasoning]
        calls = [{"tool_calls": [call]} for call in self.tool_calls]
        return [*thoughts, *({"content": text} for text in self.pieces), *calls]


def say(*pieces: str, **rest: Any) -> Reply:
    """An answer of these pieces."""
    return Reply(pieces=pieces, **rest)


def fail(status: int, message: str = "scripted failure") -> Reply:
    """An HTTP error before any token."""
    return Reply(status=status, message=message)


SPANISH = say("La capital de España ", "es la ciudad de Madrid, ", "que está en el centro del país.")
ENGLISH = say("The capital of Spain ", "is the city of Madrid, ", "which stands in the middle of the country.")


class Upstream:
    """A scripted model server for all models; a model is told apart by the name in the request."""

    def __init__(self) -> None:
        self.otherwise: Reply | Callable[[dict[str, Any]], Reply] | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = threading.Semaphore(0)
        self._script: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def script(self, model: str, *replies: Reply) -> None:
        """What the model says next, one reply a request."""
        self._script[model].extend(replies)

    def clear(self) -> None:
        """Forget what was asked and what was to be said."""
        self._script.clear()
        self.requests.clear()

    def asked(self) -> list[str]:
        """The models in the order in which they were asked."""
        return [request["model"] for request in self.requests]

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            # He was gone before the answer stalled.
            self.hung_up.release()
        except asyncio.IncompleteReadError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        self.requests.append(body)
        self.headers.append(headers)
        queue = self._script[body["model"]]
        reply = queue.popleft() if queue else self.otherwise
        if callable(reply):
            reply = reply(body)
        if reply is None:
            reply = fail(500, f"{body['model']} has no script")
        await asyncio.sleep(reply.delay_s)
        if reply.raw is not None:
            writer.write(reply.raw)
        elif reply.status != 200:
            error = {"error": {"message": reply.message, "type": "scripted", "code": reply.status}}
            writer.write(_whole(reply.status, json.dumps(error).encode()))
        else:
            await self._stream(reply, body, reader, writer)
        await writer.drain()

    async def _stream(
        self, reply: Reply, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for after_s, read, total in reply.reads:
            await asyncio.sleep(after_s)
            told = {"total": total, "processed": read}
            writer.write(_event(body["model"], {"role": "assistant"}, prompt_progress=told))
            await writer.drain()
        deltas = reply.deltas()
        for count in range(len(deltas) + 1):
            if reply.break_after == count:
                await writer.drain()
                await asyncio.sleep(0.02)  # let what was sent arrive before the connection breaks
                writer.transport.abort()
                return
            if reply.stall_after == count:
                await self._until_hung_up(reader, writer)
                return
            if reply.wait_after and reply.wait_after[0] == count:
                await writer.drain()
                await asyncio.to_thread(reply.wait_after[1].wait, 20)
            if count < len(deltas):
                writer.write(_event(body["model"], deltas[count], logprob=_logprob(reply, body, deltas[count])))
                await writer.drain()
        writer.write(_event(body["model"], {}, finish_reason=reply.finish_reason))
        writer.write(_usage(body["model"], reply, len(deltas)))
        writer.write(_frame(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def _until_hung_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        with suppress(ConnectionError):
            await reader.read()
        self.hung_up.release()


def _whole(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _frame(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _chunk(model: str, **rest: Any) -> bytes:
    chunk = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": model, **rest}
    return _frame(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _event(
    model: str, delta: dict[str, Any], finish_reason: str | None = None, logprob: Any = None, **rest: Any
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprob}
    return _chunk(model, choices=[choice], **rest)


def _logprob(reply: Reply, body: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any] | None:
    if not body.get("logprobs") or "content" not in delta:
        return None
    token = delta["content"]
    return {"content": [{"token": token, "bytes": list(token.encode()), "logprob": reply.logprob, "top_logprobs": []}]}


def _usage(model: str, reply: Reply, completion_tokens: int) -> bytes:
    used: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": reply.prompt_tokens + completion_tokens,
    }
    if reply.cached_tokens is not None:
        used["prompt_tokens_details"] = {"cached_tokens": reply.cached_tokens}
    return _chunk(model, choices=[], usage=used)


class FakeFleet:
    """Hands out one upstream for every model and counts claims."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self.url = url
        self.refusals: dict[str, Exception] = {}
        self.held: defaultdict[str, int] = defaultdict(int)
        self.claims: list[str] = []
        self.states: dict[str, ServerState] = {}
        self.generation = 1

    @property
    def all_given_back(self) -> bool:
        """No claim is held."""
        return not any(self.held.values())

    def close(self) -> None:
        """There are no servers to stop."""

    def snapshot(self) -> FleetSnapshot:
        """Every model, ready unless `states` says otherwise."""
        return FleetSnapshot(
            models=tuple(
                ModelStatus(
                    id=spec.id,
                    state=self.states.get(spec.id, ServerState.ready),
                    stand_in=spec.stand_in,
                    generation=self.generation,
                )
                for spec in self._settings.models
            )
        )

    @asynccontextmanager
    async def claim(self, model_id: str, deadline_s: float) -> AsyncIterator[Endpoint]:
        """The upstream's endpoint, or the refusal set for this model."""
        self.claims.append(model_id)
        if model_id in self.refusals:
            raise self.refusals[model_id]
        self.held[model_id] += 1
        try:
            yield Endpoint(model_id=model_id, url=self.url, api_key="key-of-" + model_id, generation=self.generation)
        finally:
            self.held[model_id] -= 1


class FakeEmbedder:
    """Vectors that are equal for equal texts and nearly orthogonal for others."""

    version = "fake-1"

    def embed(self, text: str) -> Vector:
        """A unit vector."""
        vector: Vector = self.embed_many([text])[0]
        return vector

    def embed_many(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, seeded by the text."""
        rows = []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
            row = np.random.default_rng(seed).standard_normal(512)
            rows.append(row / np.linalg.norm(row))
        return np.asarray(rows, dtype=np.float32)

    def embed_whole(self, texts: Sequence[str]) -> tuple[Vector, list[int]]:
        """The same vectors; a token a word."""
        return self.embed_many(texts), [len(text.split()) for text in texts]

    def warm(self) -> None:
        """Nothing to load."""


def classification(**changes: Any) -> Classification:
    """A short Spanish question of fact, with changes."""
    values: dict[str, Any] = {
        "language": "es",
        "language_confidence": 0.99,
        "reply_language": "es",
        "domain": "factual_qa",
        "confidence": 0.9,
        "complexity": 0.1,
        "modality": "text",
        "prompt_tokens": 12,
    }
    return Classification.model_validate({**values, **changes})


@dataclass
class FakeClassifier:
    """Says what it is told to say."""

    says: Classification = field(default_factory=classification)
    fails: Exception | None = None

    def classify(self, messages: Sequence[BaseMessage], sampling: Sampling | None = None) -> Classification:
        """The prepared classification, with what the request's sampling adds to it."""
        if self.fails:
            raise self.fails
        return self.says.model_copy(update={"wants_tools": bool(sampling and sampling.tools)})

    def read(self, messages: Sequence[BaseMessage], sampling: Sampling | None = None) -> Reading:
        """As classify; words spoke for it."""
        found = self.classify(messages, sampling)
        features = Features(evidence={found.domain: 3.0}, structure=0.1, prompt_tokens=found.prompt_tokens)
        return Reading(found, found.neighbours, features, None)


@dataclass
class FakeLearner:
    """Remembers what it was told and expects what it is told to."""

    expects: dict[str, Expectation] = field(default_factory=dict)
    report: UpdateReport = field(default_factory=lambda: UpdateReport(update_id=1, applied=True, reason="Fine."))
    told: list[Outcome] = field(default_factory=list)
    fails: Exception | None = None

    def record(self, outcomes: Sequence[Outcome]) -> UpdateReport:
        """The prepared report."""
        if self.fails:
            raise self.fails
        self.told.extend(outcomes)
        return self.report

    def expect(self, classification: Classification) -> dict[str, Expectation]:
        """The prepared expectations."""
        if self.fails:
            raise self.fails
        return self.expects

    def updates(self) -> tuple[Update, ...]:
        """None."""
        return ()

    def undo(self, update_id: int) -> UpdateReport:
        """There is nothing to undo."""
        raise StoreError(f"There is no applied update {update_id}.")

    def weigh_sureness(self, votes: int, before: float, after: float, *, holds: bool) -> bool:
        """Whatever holds counts."""
        return holds

    def drop_sureness(self) -> None:
        """There is no log."""

    def stock(self) -> Stock:
        """As many as it was told."""
        return Stock(len(self.told))

    def clear(self) -> int:
        """Forgets what it was told."""
        count = len(self.told)
        self.told.clear()
        return count

    def close(self) -> None:
        """Nothing to let go of."""


class FakeHouse:
    """A house over fakes, with the real graph, models, runnable and LiteLLM Router."""

    def __init__(self, settings: Settings, upstream: Upstream, *, checkpointer: Any = None, cores: int = 8) -> None:
        self.settings = settings
        self.upstream = upstream
        self.fleet = FakeFleet(settings, upstream.url)
        self.classifier = FakeClassifier()
        self.embedder = FakeEmbedder()
        self.models = Models(self.fleet, load_wait_s=5)
        self.learner = FakeLearner()
        self.learning = Learning(Journal(settings.data_dir, keep=100), self.learner)
        self.conversations = Conversations(settings.data_dir / "responses.sqlite3", keep_s=60, clock=time.time)
        self.threads = Threads(settings.data_dir / "threads.sqlite3", keep_s=60, clock=time.time)
        self.metering = Metering(self.fleet.snapshot)
        self.services = Services(
            settings=settings,
            fleet=self.fleet,
            classifier=self.classifier,  # type: ignore[arg-type]
            embedder=self.embedder,  # type: ignore[arg-type]
            models=self.models,
            expect=self.learning.expect,
            ended=self._ended,
            weights=self.learning.weights,
            cores=cores,
        )
        self.graph: Graph = build(self.services, checkpointer=checkpointer)
        self.capibara = GraphRunnable(lambda: self.graph)

    def _ended(self, *run: Any) -> None:
        self.learning.ended(*run)
        self.metering.ended(*run)

    def decide(self, messages: Sequence[BaseMessage], request: Request) -> tuple[Classification, Plan]:
        """Classify and route without generating anything."""
        return self.services.decide(messages, request)

    def explain(
        self, messages: Sequence[BaseMessage], request: Request, language: Language | None = None
    ) -> dict[str, Any]:
        """As decide, as JSON."""
        reading = self.classifier.read(messages, request.sampling)
        situation = self.services.situation(reading.classification, messages, request)
        plan = self.services.first_plan(situation)
        return explained(reading, situation, plan, language or reading.classification.language)

    @cached_property
    def exemplars(self) -> ExemplarStore:
        """A real store with a few exemplars."""
        shipped = [e for e in shipped_exemplars() if e.domain == "sql"][:10]
        return ExemplarStore.open(self.settings.data_dir / "exemplars", self.embedder, shipped=shipped)

    def close(self) -> None:
        """End the background loop, the learning and the store."""
        self.capibara.close()
        self.threads.stop()
        self.learning.close()
        if "exemplars" in self.__dict__:
            self.exemplars.close()


async def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    """Wait until something has become true; fails after the limit."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  (conditions of other threads, too)
            await asyncio.sleep(0.01)


def fenced(tag: str, code: str) -> str:
    """Code as an answer shows it."""
    return f"```{tag}\n{code}\n```"
