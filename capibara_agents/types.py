"""The values that travel through a request, and the one Protocol that joins the graph to the machine room.

    Request  ->  Classification  ->  Plan  ->  Candidate…  ->  Ballot  ->  Verdict

All values are frozen and plain enough for JSON: they are the trace a caller gets to see. Durations are
seconds (`_s`) or milliseconds (`_ms`), sizes are bytes (`_bytes`), probabilities and scores lie in [0, 1].
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Language = Literal["es", "en"]
Domain = Literal[
    "chitchat",
    "factual_qa",
    "translation",
    "summarization",
    "creative_writing",
    "coding",
    "sql",
    "math",
    "logic_reasoning",
    "long_context",
    "vision",
    "other",
]
Tier = Literal["fast_response", "balanced", "general", "multimodal", "complex"]
Mode = Literal["single", "cascade", "consensus"]
Level = Literal["simple", "medium", "complex"]
Voting = Literal["simple", "weighted", "confidence"]
Schedule = Literal["together", "turns"]
TemplateName = Literal["general", "coding", "analysis", "creative", "technical"]

VIRTUAL_MODELS: dict[str, Literal["auto", "single", "consensus"]] = {
    "capibara": "auto",
    "capibara-fast": "single",
    "capibara-consensus": "consensus",
}


SAMPLE_MARK = "#"


def model_of(voter: str) -> str:
    """The model behind a voter: `m#2` is the second sample of m."""
    return voter.partition(SAMPLE_MARK)[0]


def sample_of(voter: str) -> int:
    """Which sample of its model a voter is, from 1."""
    _, _, number = voter.partition(SAMPLE_MARK)
    return int(number) if number else 1


def voter_of(model: str, sample: int) -> str:
    """The name under which a sample of a model votes; the first one's is the model's."""
    return model if sample == 1 else f"{model}{SAMPLE_MARK}{sample}"


class Value(BaseModel):
    """A frozen value; unknown fields are a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


# ---------------------------------------------------------------- what is asked


class Sampling(Value):
    """What goes to the model's server unchanged; names and ranges are OpenAI's. None means the server's default."""

    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None


class Request(Value):
    """How a question is to be answered: the graph's context, a form in Studio."""

    model: str = Field("capibara", description="A model id, one of its aliases, or a virtual model.")
    mode: Literal["auto", "single", "cascade", "consensus"] = Field(
        "auto", description="auto decides; single asks one model; cascade starts small; consensus lets several vote."
    )
    voters: tuple[str, ...] = Field((), description="Model ids that vote; empty lets Capibara choose.")
    min_voters: int = Field(2, ge=1, le=5, description="Fewer answers than this make the vote degraded.")
    max_voters: int = Field(3, ge=1, le=5, description="No more models than this are asked in a vote.")
    voting: Voting = Field("weighted", description="How ballots are counted.")
    samples: int = Field(1, ge=1, le=5, description="So many answers of the strongest voter take part in a vote.")
    template: TemplateName | None = Field(None, description="A prompt template put before the conversation.")
    quality: Literal["fast", "balanced", "best"] = Field("balanced", description="Speed against quality.")
    deadline_s: float | None = Field(None, ge=0.001, description="Seconds after which whoever has answered decides.")
    fallback: bool = Field(False, description="May another model answer when the named one cannot?")
    stream: Literal["off", "auto", "eager", "verified"] = Field(
        "off",
        description="off: one answer; auto: tokens as they come where one model answers; eager: the first voter's too, "
        "while the others vote; verified: only after the checks.",
    )
    tests: str | None = Field(
        None, max_length=200_000, description="Python code that the answer's code must pass; it is run in a sandbox."
    )
    synthesis: bool = Field(
        False, description="After a vote on free text, let the strongest voter write one answer out of all."
    )
    judge: bool = Field(False, description="Let another model look at the answer too; its word never stands alone.")
    choices: int = Field(1, ge=1, description="So many ranked answers are returned; more than one needs a vote.")
    sampling: Sampling = Field(default_factory=Sampling, description="Passed to the model unchanged.")


# ---------------------------------------------------------------- classify


class Neighbour(Value):
    """An exemplar near the question. `score` is the cosine similarity in [-1, 1]."""

    id: str
    score: float
    domain: Domain
    complexity: float


class Classification(Value):
    """What the question is."""

    language: Language
    language_confidence: float = Field(ge=0, le=1)
    reply_language: Language | None = Field(
        description="The language the answer is checked against; None where the question leaves it open."
    )
    domain: Domain
    confidence: float = Field(ge=0, le=1, description="Share of the evidence that speaks for the domain.")
    complexity: float = Field(ge=0, le=1)
    modality: Literal["text", "image"]
    prompt_tokens: int = Field(ge=0, description="An estimate, from characters; no tokenizer is asked.")
    wants_json: bool = False
    wants_tools: bool = False
    neighbours: tuple[Neighbour, ...] = ()
    signature: tuple[float, ...] = Field(
        (), exclude=True, repr=False, description="What outcomes are recorded by, see signature.py; in no trace."
    )

    @property
    def complexity_level(self) -> Level:
        return "simple" if self.complexity < 0.34 else "medium" if self.complexity < 0.67 else "complex"


# ---------------------------------------------------------------- what was learned


class Expectation(Value):
    """What the recorded outcomes near a question let one expect of a model on it."""

    good: float = Field(ge=0, le=1, description="Probability that its answer is good, calibrated.")
    support: float = Field(ge=0, description="How many outcomes stand behind it, each counted by its nearness.")
    seconds: float | None = Field(None, ge=0, description="For a whole answer; None where no outcome says.")


# ---------------------------------------------------------------- route


class Reason(Value):
    """Why a plan is as it is: a code of `texts/` with the values its sentence needs."""

    code: str
    values: dict[str, str | int | float] = Field(default_factory=dict)


class Plan(Value):
    """Which models are asked now, and who comes after them."""

    mode: Mode
    models: tuple[str, ...] = Field(
        min_length=1, description="Asked in this attempt, in the order of their value; `m#2`: a second sample of m."
    )
    schedule: Schedule = Field("together", description="Several models side by side, or one after the other.")
    chain: tuple[str, ...] = Field((), description="Asked in later attempts, in this order.")
    tier: Tier
    weights: dict[str, float] = Field(default_factory=dict, description="A voter's prior weight, log-odds.")
    attempt: int = Field(1, ge=1)
    first_choice: str = Field(description="The model, or the first voter, of attempt 1.")
    reason: Reason
    read_tokens: dict[str, int] = Field(
        default_factory=dict, description="Model -> tokens of this conversation that its server holds already."
    )


# ---------------------------------------------------------------- generate

SPARED = "spared"


class Check(Value):
    """One check of an answer. `reason` is a code of `texts/`; `details` are what was found, for the trace."""

    name: str
    passed: bool
    reason: str = ""
    details: dict[str, str | int | float] = Field(default_factory=dict)


class Timings(Value):
    """Measured on a monotonic clock, from the moment the model was asked for."""

    wait_ms: float = Field(description="Until the model was claimed: queueing and loading.")
    ttft_ms: float | None = Field(None, description="From the claim to the first token.")
    total_ms: float = Field(description="Waiting included.")


class Usage(Value):
    """As the model's server counted it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = Field(None, description="Of the prompt, read from its cache; None: it did not say.")
    reasoning_tokens: int | None = Field(None, description="Of the completion, thought before it; None: not counted.")

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Candidate(Value):
    """What one model gave in one attempt: a text, tool calls, or an error."""

    model: str
    sample: int = Field(1, ge=1, description="Of several answers of one model in a vote, which one.")
    attempt: int = 1
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None
    usage: Usage = Usage()
    logprobs: tuple[dict[str, Any], ...] = Field((), description="OpenAI's per-token entries, where asked for.")
    mean_logprob: float | None = Field(None, description="Mean log-probability of the tokens, nats.")
    min_logprob: float | None = Field(None, description="Of the least likely token.")
    tail_logprob: float | None = Field(None, description="Mean of the last 16 tokens, where short answers stand.")
    timings: Timings
    error: str | None = Field(None, description="An error code; None for an answer.")
    error_message: str = ""
    retry_after_s: float | None = None
    emitted: bool = Field(False, description="Tokens of it have already gone to the caller.")
    part: Literal["answer", "synthesis"] = Field("answer", description="synthesis: written out of the voters' answers.")
    behaviour: Check | None = Field(None, description="What running its code showed, where there was something to run.")

    @property
    def has_answer(self) -> bool:
        return self.error is None and bool(self.content.strip() or self.tool_calls)

    @property
    def voter(self) -> str:
        """Its name in a vote."""
        return voter_of(self.model, self.sample)

    @property
    def key(self) -> str:
        key = f"{self.attempt}:{self.voter}"
        return key if self.part == "answer" else f"{key}:{self.part}"

    @property
    def was_spared(self) -> bool:
        """A voter that was not asked to the end: the others had decided."""
        return self.error == SPARED


# ---------------------------------------------------------------- vote


class AnswerKind(StrEnum):
    """What kind of canonical answer a text was reduced to."""

    number = "number"
    expression = "expression"
    option = "option"
    yes_no = "yes_no"
    date = "date"
    name = "name"
    json = "json"
    literal = "literal"
    code = "code"
    sql = "sql"
    text = "text"


class Canonical(Value):
    """The answer inside a text, in a form that can be compared: `answers.same` says whether two are equal."""

    kind: AnswerKind
    value: str
    unit: str = Field("", description="Of a number: km, €, %; empty where none was written.")
    confidence: float = Field(ge=0, le=1)


class Vote(Value):
    """One voter's part in a ballot."""

    model: str = Field(description="The voter; `m#2`: a second sample of m.")
    answer: Canonical
    weight: float = Field(description="Log-odds of being right, or 1 in a simple vote.")
    cluster: int = Field(description="Voters of one cluster gave the same answer.")
    evidence: int = Field(0, ge=0, description="Recorded votes behind the weight; 0: it is assumed.")
    traits: dict[str, float] = Field(
        default_factory=dict, exclude=True, repr=False, description="Of its answer, see vote/traits.py; in no trace."
    )
    logprobs: dict[str, float] = Field(
        default_factory=dict, exclude=True, repr=False, description="mean, min, tail of its words, where known."
    )


class Ballot(Value):
    """The outcome of a vote. `winner` is None when nobody gave an answer."""

    winner: str | None = Field(description="Key of the winning candidate, `attempt:model`.")
    method: Literal["pass", "simple", "weighted", "confidence"]
    agreement: float = Field(ge=0, le=1, description="Weight of the winning cluster over all weight cast.")
    confidence: float = Field(ge=0, le=1)
    calibrated: bool = Field(False, description="Whether confidence is a chance of being right that was learned.")
    votes: tuple[Vote, ...] = ()
    absent: dict[str, str] = Field(default_factory=dict, description="Voter -> error code.")
    degraded: bool = Field(False, description="A voter who was to be heard gave no answer; the others decided.")
    spared: tuple[str, ...] = Field((), description="Voters whose answers could not have changed, or not paid.")


# ---------------------------------------------------------------- verify


class Verdict(Value):
    """What became of the winning candidate, and whether the graph asks again."""

    accepted: bool
    checks: tuple[Check, ...] = ()
    candidate: str | None = Field(description="Key of the candidate that is returned, or was judged.")
    final: bool = Field(description="True ends the run; False sends the question back to route.")
    degraded: bool = Field(False, description="Not the model, or not the voters, that were chosen first.")
    held: bool | None = Field(
        None, description="Of an answer that was streamed while others voted: whether the vote came out the same."
    )


# ---------------------------------------------------------------- the machine room, seen from the library


class ServerState(StrEnum):
    """The life of one model's server; transitions are drawn in `runtime/server.py`."""

    stopped = "stopped"
    starting = "starting"
    ready = "ready"
    stopping = "stopping"
    failed = "failed"


class ModelStatus(Value):
    """One model of the fleet at one moment."""

    id: str
    state: ServerState
    url: str | None = Field(None, description="Base URL of its server, without /v1; None while it has none.")
    pid: int | None = None
    port: int | None = None
    rss_bytes: int | None = None
    reserved_bytes: int = Field(0, description="Counted against the budget while its server runs.")
    tokens_per_second: float | None = Field(
        None, description="Written now, over all answers; at rest None, or in GET /fleet that of the last answer."
    )
    active: int = Field(0, description="Claims held now.")
    queue: int = Field(0, description="Claims waiting for it.")
    slots: int = Field(1, description="Requests it answers side by side.")
    load_progress: float | None = Field(None, ge=0, le=1)
    load_s: float | None = Field(None, ge=0, description="What its latest start took; None before the first.")
    restarts: int = 0
    error: str | None = Field(None, description="One sentence: why it failed.")
    permanent: bool = Field(False, description="A failure that a restart cannot mend.")
    stand_in: bool = False
    generation: int = Field(0, description="Of its latest server, as in `Endpoint`.")


class FleetSnapshot(Value):
    """The fleet at one moment, models in the order of the configuration."""

    models: tuple[ModelStatus, ...]
    budget_bytes: int | None = None
    used_bytes: int | None = None

    def get(self, model_id: str) -> ModelStatus:
        """The status of one model; KeyError when it is not of this fleet."""
        for status in self.models:
            if status.id == model_id:
                return status
        raise KeyError(model_id)


class Keeps(Value):
    """How much a server keeps of the prompts that it has read, beside the one it is at."""

    slots: int = Field(1, ge=1, description="Each holds the last one that was read in it.")
    tokens: int = Field(0, ge=0, description="Room for others in its cache in memory.")
    prompt_tokens: int = Field(0, ge=0, description="What each takes of that room beside its own tokens.")


class Endpoint(Value):
    """Where a claimed model answers. Valid while the claim is held."""

    model_id: str
    url: str = Field(description="http://127.0.0.1:PORT, without /v1.")
    api_key: str = Field(repr=False)
    generation: int = Field(description="Grows with each start of the server: a new process, a new endpoint.")
    keeps: Keeps = Keeps()


class Fleet(Protocol):
    """What the graph needs of the machine room. Safe to use from any thread and any event loop."""

    def snapshot(self) -> FleetSnapshot:
        """The state of every model, without waiting for anything."""
        ...

    def claim(self, model_id: str, deadline_s: float) -> AbstractAsyncContextManager[Endpoint]:
        """Load the model if need be and hold it: it is neither unloaded nor stopped while claimed.

        Waits at most `deadline_s` seconds for the model to be ready and for a place in its queue.
        Raises ModelLoading (with retry_after_s) when it is still loading then, ModelUnavailable when it
        cannot be had, KeyError for a model that is not of this fleet.
        """
        ...
