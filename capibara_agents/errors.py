"""Every error Capibara raises on purpose.

    CapibaraError
    ├── ConfigError            a key, a file or a flag is wrong; nothing was started
    ├── EngineError            no llama-server, no compiler, or a build for another CPU
    ├── WeightsError           a model file is missing, truncated or not what its checksum says
    ├── TemplateError          a prompt template misses a variable
    ├── StoreError             the exemplar store cannot be opened or written
    ├── BadQuestion            the request itself cannot be answered as asked (HTTP 400)
    │   ├── UnknownModel       it names a model nobody knows (HTTP 404)
    │   └── ContextTooLong     no model has room for it
    └── ModelError             one model could not answer this once
        ├── Behind             not a model: what was answered is not written down yet (HTTP 503)
        ├── ModelUnavailable   not up, and will not be soon (HTTP 503)
        │   └── ModelLoading   not up yet: try again in `retry_after_s`
        ├── ModelCrashed       its server went away in the middle of an answer
        ├── ModelTimeout       it is up and gave no token in time (HTTP 504)
        └── NoAnswer           every model of the chain was asked and none gave text (HTTP 502)

`code` is stable and machine-readable; the message is an English sentence that says what is wrong and what to do. Where
it was given as a phrase (`texts`) it can be told in Spanish too.
No message carries prompt text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from capibara_agents.texts import Phrase, phrase

if TYPE_CHECKING:
    from capibara_agents.types import Language


class CapibaraError(Exception):
    """Base of all deliberate errors. `code` never changes between releases."""

    code: ClassVar[str] = "internal_error"

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else self.code

    @property
    def said(self) -> str | Phrase:
        """What it was made of, for another error that says the same."""
        return self.args[0] if self.args and isinstance(self.args[0], Phrase) else self.message

    def told(self, language: Language) -> str:
        """The message for a person; English where there is no other."""
        return self.said.told(language) if isinstance(self.said, Phrase) else self.message


def reason(error: Exception) -> str:
    """What the system says went wrong, without the name of the file and the number of the error."""
    if isinstance(error, UnicodeDecodeError):
        return f"no UTF-8 at byte {error.start}"
    said = error.strerror if isinstance(error, OSError) else str(error)
    return said or type(error).__name__


class ConfigError(CapibaraError):
    """Names the key and the file (or the variable, or the flag) that is wrong."""

    code = "config_error"


class EngineError(CapibaraError):
    """No usable llama-server."""

    code = "engine_error"


class WeightsError(CapibaraError):
    """A model file cannot be had or is not what it should be."""

    code = "weights_error"


class TemplateError(CapibaraError):
    """A prompt template was rendered without one of its variables."""

    code = "template_error"


class StoreError(CapibaraError):
    """The exemplar store cannot be used."""

    code = "store_error"


class BadQuestion(CapibaraError):
    """The caller must change the request. `param` is the dotted path of the offending field."""

    code = "invalid_request"

    def __init__(self, message: str | Phrase, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.reason = code or self.code


class UnknownModel(BadQuestion):
    """The message lists the models that are known."""

    code = "model_not_found"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            phrase("wrong.unknown_model", name=repr(name[:100]), known=", ".join(known)),
            param="model",
        )


class ContextTooLong(BadQuestion):
    """The prompt fits into no model's context."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, largest_context_tokens: int) -> None:
        super().__init__(
            phrase("wrong.context", tokens=prompt_tokens, largest=largest_context_tokens),
            param="messages",
        )


class ModelError(CapibaraError):
    """One model failed on one question; another may do."""

    code = "model_error"

    def __init__(self, message: str | Phrase, *, model_id: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.model_id = model_id
        self.retry_after_s = retry_after_s


class Behind(ModelError):
    """What was answered is not written down yet; come again in `retry_after_s`."""

    code = "overloaded"


class ModelUnavailable(ModelError):
    """The model is not up and waiting longer does not help now."""

    code = "model_unavailable"


class ModelLoading(ModelUnavailable):
    """The model is being loaded; `retry_after_s` is a guess from its progress."""

    code = "model_loading"


class ModelCrashed(ModelError):
    """The connection to the model's server broke off."""

    code = "model_crashed"


class ModelTimeout(ModelError):
    """No token within the model's limit."""

    code = "model_timeout"


class NoAnswer(ModelError):
    """No model of the chain gave any text."""

    code = "no_answer"
