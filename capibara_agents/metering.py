"""What answering costs, counted as it happens: Prometheus metrics under OpenTelemetry's GenAI names.

Names, units and buckets: OpenTelemetry semantic conventions for generative AI 1.37, "Generative AI metrics", with
Prometheus' spelling (dots to underscores, the unit as a suffix). Labels are model ids, codes and kinds; nothing of a
question or an answer is ever a label.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from capibara_agents.types import Ballot, Candidate, Classification, FleetSnapshot, ServerState, Verdict

log = logging.getLogger(__name__)

TOKENS = tuple(4.0**n for n in range(14))
TO_FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
WHOLE_S = tuple(0.01 * 2**n for n in range(14))
# On every metric of a model's answer: what is done, by whom, which model.
GENAI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
STANDING = ("chat", "capibara")


@dataclass(frozen=True)
class Tally:
    """What one model did since the service started. Tokens as its server counted them."""

    answers: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    speed: float | None = None
    """Tokens a second after the first one, of the last answer that had two; None before any had."""

    def plus(self, candidate: Candidate) -> Tally:
        """With one more candidate."""
        failed = candidate.error is not None
        return Tally(
            answers=self.answers + (not failed),
            errors=self.errors + failed,
            prompt_tokens=self.prompt_tokens + candidate.usage.prompt_tokens,
            completion_tokens=self.completion_tokens + candidate.usage.completion_tokens,
            seconds=self.seconds + candidate.timings.total_ms / 1000,
            speed=speed_of(candidate) or self.speed,
        )


def speed_of(candidate: Candidate) -> float | None:
    """Tokens a second after the first one; None for an answer of one token, or none."""
    timings, tokens = candidate.timings, candidate.usage.completion_tokens
    if timings.ttft_ms is None or tokens < 2:
        return None
    writing_ms = timings.total_ms - timings.wait_ms - timings.ttft_ms
    return 1000 * (tokens - 1) / writing_ms if writing_ms > 0 else None


class Metering:
    """Counts finished runs and HTTP requests; safe to use from any thread."""

    def __init__(self, snapshot: Callable[[], FleetSnapshot]) -> None:
        self.started_s = time.time()
        self.tallies: dict[str, Tally] = {}
        self.runs = self.unanswered = self.degraded = 0
        self._registry = CollectorRegistry()
        self._registry.register(_FleetGauges(snapshot))
        self._tokens = self._histogram("gen_ai_client_token_usage", "Tokens of an answer.", TOKENS, "gen_ai_token_type")
        self._to_first = self._histogram(
            "gen_ai_server_time_to_first_token_seconds", "From the claim of a model to its first token.", TO_FIRST_S
        )
        self._per_token = self._histogram(
            "gen_ai_server_time_per_output_token_seconds", "Between tokens after the first.", PER_TOKEN_S
        )
        self._whole = self._histogram(
            "gen_ai_server_request_duration_seconds", "One model's answer, waiting included.", WHOLE_S, "error_type"
        )
        self._wait = self._histogram("capibara_model_wait_seconds", "Queueing and loading before a model.", WHOLE_S)
        self._decided = Counter(
            "capibara_answers",
            "Finished runs: what was asked, how it was decided, what became of it.",
            ("domain", "language", "method", "outcome", "degraded"),
            registry=self._registry,
        )
        self._failed = Counter(
            "capibara_checks_failed", "Checks that rejected an answer.", ("check",), registry=self._registry
        )
        self._prompt = Counter(
            "capibara_prompt_tokens",
            "Tokens of prompts, by whether the model's server held them already (cache) or read them (computed).",
            ("gen_ai_request_model", "source"),
            registry=self._registry,
        )
        self._requests = Histogram(
            "http_server_request_duration_seconds",
            "HTTP requests, to the end of the answer.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=WHOLE_S,
            registry=self._registry,
        )

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, (*GENAI, *labels), buckets=buckets, registry=self._registry)

    def ended(
        self, classification: Classification, candidates: Sequence[Candidate], ballot: Ballot, verdict: Verdict
    ) -> None:
        """A run is over. Never waits, never raises: an answer is worth more than its measurement."""
        try:
            self._count(classification, candidates, ballot, verdict)
        except Exception as error:  # noqa: BLE001
            log.warning("a run could not be counted: %s", type(error).__name__)

    def _count(
        self, classification: Classification, candidates: Sequence[Candidate], ballot: Ballot, verdict: Verdict
    ) -> None:
        answered = verdict.candidate is not None
        outcome = "verified" if answered and verdict.accepted else "unverified" if answered else "none"
        degraded = "true" if verdict.degraded else "false"
        self._decided.labels(classification.domain, classification.language, ballot.method, outcome, degraded).inc()
        self.runs += 1
        self.unanswered += not answered
        self.degraded += verdict.degraded
        for check in verdict.checks:
            if not check.passed:
                self._failed.labels(check.name).inc()
        for candidate in candidates:
            self.tallies[candidate.model] = self.tallies.get(candidate.model, Tally()).plus(candidate)
            self._measure(candidate)

    def _measure(self, candidate: Candidate) -> None:
        labels = (*STANDING, candidate.model)
        timings, used = candidate.timings, candidate.usage
        self._whole.labels(*labels, candidate.error or "").observe(timings.total_ms / 1000)
        self._wait.labels(*labels).observe(timings.wait_ms / 1000)
        if timings.ttft_ms is not None:
            self._to_first.labels(*labels).observe(timings.ttft_ms / 1000)
            if used.completion_tokens > 1:
                rest_ms = timings.total_ms - timings.wait_ms - timings.ttft_ms
                self._per_token.labels(*labels).observe(max(rest_ms, 0) / 1000 / (used.completion_tokens - 1))
        if candidate.error is None:
            self._tokens.labels(*labels, "input").observe(used.prompt_tokens)
            self._tokens.labels(*labels, "output").observe(used.completion_tokens)
            if used.cached_tokens is not None:
                self._prompt.labels(candidate.model, "cache").inc(used.cached_tokens)
                self._prompt.labels(candidate.model, "computed").inc(max(0, used.prompt_tokens - used.cached_tokens))

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """One HTTP request is over; `route` is the path's template, never what a caller filled in."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _FleetGauges(Collector):
    """The fleet as it is when somebody looks."""

    def __init__(self, snapshot: Callable[[], FleetSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Nothing is looked at while the registry is made: the fleet may not be there yet."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        for name, text, value in (
            ("capibara_fleet_memory_budget_bytes", "Memory the fleet may use.", snapshot.budget_bytes),
            ("capibara_fleet_memory_used_bytes", "Memory reserved by running servers.", snapshot.used_bytes),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value)
        states = GaugeMetricFamily("capibara_model_state", "1 for the state it is in.", labels=("model", "state"))
        for model in snapshot.models:
            for state in ServerState:
                states.add_metric((model.id, state.value), float(model.state is state))
        yield states
        for name, text, field in (
            ("capibara_model_active_requests", "Answers being written.", "active"),
            ("capibara_model_queued_requests", "Requests waiting.", "queue"),
            ("capibara_model_slots", "Requests answered side by side.", "slots"),
            ("capibara_model_memory_rss_bytes", "Resident memory of the server.", "rss_bytes"),
            ("capibara_model_tokens_per_second", "Written now, over all answers.", "tokens_per_second"),
            ("capibara_model_restarts", "Restarts after a failure.", "restarts"),
        ):
            gauge = GaugeMetricFamily(name, text, labels=("model",))
            for model in snapshot.models:
                found = getattr(model, field)
                if found is not None:
                    gauge.add_metric((model.id,), float(found))
            yield gauge
