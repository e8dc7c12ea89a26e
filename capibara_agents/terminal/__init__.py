"""What the commands do. Each module is imported by its command alone: some of them need seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from capibara_agents.texts import sentence

if TYPE_CHECKING:
    from capibara_agents.config import Loaded
    from capibara_agents.settings import Settings
    from capibara_agents.types import Language


class Terminal:
    """What every command has at hand: the language, and how to say things in it."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def text(self, code: str, /, **values: object) -> str:
        return sentence(code, self.language, **values)

    def say(self, code: str, /, **values: object) -> None:
        typer.echo(self.text(code, **values))

    def note(self, code: str, /, **values: object) -> None:
        """On standard error: what is not the result."""
        typer.echo(self.text(code, **values), err=True)

    def print_json(self, value: Any) -> None:
        typer.echo(json.dumps(value, ensure_ascii=False, indent=2))

    def print_line(self, value: Any) -> None:
        """JSON on one line, for results that come one by one."""
        typer.echo(json.dumps(value, ensure_ascii=False))

    def load(self, config: Path | None, **flags: Any) -> Loaded:
        """The settings; warnings go to standard error."""
        from capibara_agents.config import load  # noqa: PLC0415

        loaded = load(config, flags=flags)
        for warning in loaded.warnings:
            self.note("warning", text=warning)
        return loaded

    def stand_ins(self, settings: Settings) -> str:
        """One line that names the models that run on other weights; empty when none does."""
        stand_ins = [spec for spec in settings.models if spec.stand_in]
        if not stand_ins:
            return ""
        weights = dict.fromkeys(spec.weights_name for spec in stand_ins)
        return self.text("stand_in", models=", ".join(spec.id for spec in stand_ins), weights=", ".join(weights))
