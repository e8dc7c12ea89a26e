"""Who can take a request at all: images, tools, room for the prompt, and a server that can run."""

from __future__ import annotations

from collections.abc import Sequence

from capibara_agents.errors import BadQuestion, ContextTooLong
from capibara_agents.route.situation import Situation
from capibara_agents.settings import ModelSpec
from capibara_agents.texts import phrase
from capibara_agents.types import FleetSnapshot, ModelStatus, ServerState

# Room kept for the answer when the request sets no max_tokens.
ANSWER_TOKENS = 256


def able(situation: Situation, specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Those of `specs` that can take the request at all; an error that names why when none can."""
    classification = situation.classification
    found = list(specs)
    if classification.modality == "image":
        found = [spec for spec in found if spec.sees_images]
        if not found:
            raise BadQuestion(
                phrase("plan.no_images"),
                param="messages",
                code="image_not_supported",
            )
    if classification.wants_tools:
        found = [spec for spec in found if spec.calls_tools]
        if not found:
            raise BadQuestion(
                phrase("plan.no_tools"),
                param="tools",
                code="tools_not_supported",
            )
    needed = classification.prompt_tokens + min(situation.request.sampling.max_tokens or ANSWER_TOKENS, ANSWER_TOKENS)
    fitting = [spec for spec in found if spec.context_tokens >= needed]
    if not fitting:
        raise ContextTooLong(classification.prompt_tokens, max(spec.context_tokens for spec in found))
    return fitting


def runnable_now(specs: Sequence[ModelSpec], fleet: FleetSnapshot) -> list[ModelSpec]:
    """Those whose server runs or could be started; all of them when none can, so that the failure names itself."""
    found = [spec for spec in specs if can_run(spec, fleet)]
    return found or list(specs)


def can_run(spec: ModelSpec, fleet: FleetSnapshot) -> bool:
    """False after a failure that a restart cannot mend, or when the weights alone exceed the memory budget."""
    status = status_of(spec.id, fleet)
    if status is not None and status.state is ServerState.failed and status.permanent:
        return False
    return fleet.budget_bytes is None or weights_bytes(spec) <= fleet.budget_bytes


def status_of(model_id: str, fleet: FleetSnapshot) -> ModelStatus | None:
    """The model's state; None where the snapshot does not know it."""
    return next((status for status in fleet.models if status.id == model_id), None)


def weights_bytes(spec: ModelSpec) -> int:
    """What its files take in memory, as far as the configuration says; 0 where it does not."""
    files = (spec.weights, spec.mmproj)
    return sum(file.size_bytes or 0 for file in files if file is not None)
