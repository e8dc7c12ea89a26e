"""The one place that puts things together: settings -> fleet -> models -> graph -> Capibara, app.

Everything is made when it is first needed, and nothing at import.
"""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import BaseMessage, HumanMessage

from capibara_agents import garbage, language
from capibara_agents.affinity import Affinity
from capibara_agents.classify import Classifier
from capibara_agents.config import load
from capibara_agents.conversations import Conversations
from capibara_agents.embedder import Embedder
from capibara_agents.errors import CapibaraError
from capibara_agents.exemplar_vectors import KnownVectors
from capibara_agents.exemplars import ExemplarStore, shipped_exemplars
from capibara_agents.explain import explained
from capibara_agents.head import Head
from capibara_agents.journal import Journal
from capibara_agents.learning import Learning
from capibara_agents.metering import Metering
from capibara_agents.models import Models
from capibara_agents.outcomes import Learner
from capibara_agents.route.worth import ASSUMED
from capibara_agents.runnable import GraphRunnable
from capibara_agents.runtime.cpu import read_cpu
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.fleet import LlamaFleet
from capibara_agents.runtime.reload import Difference
from capibara_agents.runtime.tuning import prefill_speeds, tuned_settings
from capibara_agents.settings import Settings
from capibara_agents.spelling import Spelling
from capibara_agents.threads import Threads
from capibara_agents.types import Classification, Language, Plan, Request

if TYPE_CHECKING:
    from fastapi import FastAPI

    from capibara_agents.graphs.capibara import Graph
    from capibara_agents.services import Services

RELOAD_LIMIT_S = 10.0


def for_this_machine(settings: Settings) -> Settings:
    """The settings with what the models leave open filled in for this CPU. EngineError without a llama-server."""
    return tuned_settings(settings, read_cpu(), find_engine(settings).version)


class House:
    """All the parts of one Capibara over one configuration."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened = False

    @cached_property
    def fleet(self) -> LlamaFleet:
        """The five servers; nothing is loaded yet."""
        fleet = LlamaFleet(for_this_machine(self.settings))
        fleet.start()
        return fleet

    @cached_property
    def embedder(self) -> Embedder:
        return Embedder()

    @cached_property
    def exemplars(self) -> ExemplarStore:
        where = self.settings.routing.exemplar_store or self.settings.data_dir / "exemplars"
        return ExemplarStore.open(where, KnownVectors.shipped(self.embedder))

    @cached_property
    def classifier(self) -> Classifier:
        neighbours = self.settings.routing.neighbours
        spelling = Spelling((exemplar.content for exemplar in shipped_exemplars()), lambda: self.embedder.words)
        return Classifier(
            self.embedder, self.exemplars, neighbours=neighbours, head=Head.shipped(), spelling=spelling.corrected
        )

    @cached_property
    def learning(self) -> Learning:
        folder = self.settings.data_dir
        # As the policy assumes: what is good or bad about an outcome is what differs from that.
        learner = Learner(folder, prior={spec.id: ASSUMED for spec in self.settings.models})
        return Learning(Journal(folder, self.settings.routing.remembered_requests), learner)

    @cached_property
    def conversations(self) -> Conversations:
        keep_s = self.settings.server.keep_days * 86_400
        return Conversations(self.settings.data_dir / "responses.sqlite3", keep_s=keep_s, clock=time.time)

    @cached_property
    def threads(self) -> Threads:
        where = self.settings.server.threads or self.settings.data_dir / "threads.sqlite3"
        return Threads(where, keep_s=self.settings.server.keep_days * 86_400, clock=time.time)

    @cached_property
    def metering(self) -> Metering:
        # No fleet is made to measure one.
        return Metering(lambda: self.fleet.snapshot())  # noqa: PLW0108

    @cached_property
    def models(self) -> Models:
        affinity = Affinity(prefill_speeds(self.settings, read_cpu(), find_engine(self.settings).version))
        return Models(self.fleet, load_wait_s=self.settings.runtime.load_wait_s, affinity=affinity)

    @cached_property
    def cores(self) -> int:
        """Physical cores that voters share."""
        return read_cpu().cores

    @cached_property
    def services(self) -> Services:
        from capibara_agents.services import Services  # noqa: PLC0415  (what checks answers takes long to import)

        return Services(
            settings=self.settings,
            fleet=self.fleet,
            classifier=self.classifier,
            embedder=self.embedder,
            models=self.models,
            expect=self.learning.expect,
            ended=self._ended,
            weights=self.learning.weights,
            cores=self.cores,
        )

    @cached_property
    def graph(self) -> Graph:
        from capibara_agents.graphs.capibara import build  # noqa: PLC0415  (LangGraph takes a second to import)

        return build(self.services)

    @cached_property
    def capibara(self) -> Capibara:
        return Capibara(self)

    def _ended(self, *run: Any) -> None:
        self.learning.ended(*run)
        self.metering.ended(*run)

    def decide(self, messages: Sequence[BaseMessage], request: Request) -> tuple[Classification, Plan]:
        """Classify and route without generating anything."""
        return self.services.decide(messages, request)

    def explain(
        self, messages: Sequence[BaseMessage], request: Request, language: Language | None = None
    ) -> dict[str, Any]:
        """As `decide`, as JSON with what spoke for it; the reason in the question's language unless one is given."""
        reading = self.classifier.read(messages, request.sampling)
        situation = self.services.situation(reading.classification, messages, request)
        plan = self.services.first_plan(situation)
        return explained(reading, situation, plan, language or reading.classification.language)

    def reload(self, settings: Settings) -> Difference:
        """Take over a new configuration of models, routing and machine room; what runs is not cut.

        Raises ConfigError or EngineError and changes nothing when it cannot be taken over. What listens (`server`)
        stays as it was started.
        """
        change = self.fleet.apply(for_this_machine(settings)).result(RELOAD_LIMIT_S)
        self.settings = settings
        # Questions under way keep the graph they began with; the next one finds a new one.
        for part in ("services", "graph"):
            self.__dict__.pop(part, None)
        return change

    def warm(self) -> None:
        """Pay now for what the first question would otherwise wait for: imports, vectors, the graph."""
        self.warm_deciding()
        self.warm_answering()

    def warm_deciding(self) -> None:
        """The first half: what finds out who is to answer."""
        # Weights and tables are read beside the imports. All packages that import each other stay in one thread.
        with ThreadPoolExecutor(1) as beside:
            read = beside.submit(self._read)
            _ = self.exemplars
            read.result()
        self.learning.expect(self.classifier.classify([HumanMessage("hola")]))
        self.learning.warm()

    def warm_answering(self) -> None:
        """The second: what asks."""
        self.models.warm()
        _ = self.graph
        # It counts from here on, and not from the first request.
        _ = self.metering

    def _read(self) -> None:
        self.embedder.warm()
        language.warm()

    def foresee(self, messages: Sequence[BaseMessage], request: Request) -> None:
        """Start the model that this question will be put to first, while it is not yet asked."""
        # What cannot be decided or loaded is said when it is asked.
        with suppress(CapibaraError):
            self.fleet.load(self.decide(messages, request)[1].models[0])

    def close(self) -> None:
        """Stop the servers and let go of the store. Closing twice is fine."""
        parts = self.__dict__
        if "capibara" in parts:
            parts["capibara"].close_portal()
        if "threads" in parts:
            parts.pop("threads").stop()
        if "fleet" in parts:
            parts.pop("fleet").close()
        if "learning" in parts:
            parts.pop("learning").close()
        if "exemplars" in parts:
            parts.pop("exemplars").close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Capibara(GraphRunnable):
    """Five local models as one LangChain Runnable: messages in, an AIMessage out.

    with Capibara.from_config(fleet="tiny") as capibara:
        print(capibara.invoke("¿Cuál es la capital de Francia?").content)
    """

    def __init__(self, house: House) -> None:
        super().__init__(lambda: house.graph)
        self.house = house

    @classmethod
    def from_config(cls, path: str | Path | None = None, **flags: Any) -> Capibara:
        """A Capibara over a configuration file and keys of Settings (`fleet="tiny"`); ConfigError when wrong.

        Servers start at the first question; leaving the context (or the program) stops them.
        """
        house = House(load(path, flags=flags).settings)
        atexit.register(house.close)
        return house.capibara

    def close(self) -> None:
        """Stop the fleet and the background loop."""
        self.house.close()

    def close_portal(self) -> None:
        """Stop the background loop alone."""
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_app(
    settings: Settings | None = None,
    *,
    house: House | None = None,
    begun: Callable[[Exception | None], None] | None = None,
) -> FastAPI:
    """The HTTP service as an ASGI application; its lifespan warms and closes the house, a given one too.

    With `begun` it is up before the house is warm: what needs the house waits meanwhile, readiness is refused, and
    `begun` is told when it is warm, or what kept it from that.
    """
    from capibara_agents.http.app import build_app  # noqa: PLC0415  (FastAPI is for those who serve)

    house = house or House(settings or load().settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        traffic = app.state.traffic
        with ExitStack() as kept:

            def warm() -> None:
                house.warm()
                kept.enter_context(garbage.put_off())
                traffic.at_rest = garbage.collect_of_a_question

            async def warm_aside() -> None:
                failure = None
                try:
                    await asyncio.to_thread(warm)
                except Exception as error:  # noqa: BLE001  (told to who started it, whatever it is)
                    failure, traffic.closing = error, True
                traffic.begun.set()
                assert begun is not None
                begun(failure)

            try:
                if begun is None:
                    warm()
                    yield
                else:
                    traffic.begun.clear()
                    warming = asyncio.create_task(warm_aside())
                    yield
                    # A thread cannot be ended, and what it makes is to be closed.
                    await warming
            finally:
                await _close(house)

    return build_app(house, lifespan=lifespan)


async def _close(house: House) -> None:
    if "threads" in house.__dict__:
        await house.threads.close()
    house.close()


def build_graph(settings: Settings | None = None, *, warm: bool = False, **flags: Any) -> Graph:
    """The compiled graph over a configuration; for LangGraph's own tools. Its servers stop with the program.

    `warm`: the first question finds everything imported and loaded, and does no blocking work on its loop.
    """
    house = House(settings or load(flags=flags).settings)
    atexit.register(house.close)
    if warm:
        house.warm()
    return house.graph
