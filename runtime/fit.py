"""What a model takes on this machine, and whether it ever fits: asked before a start, and before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from capibara_agents.errors import WeightsError
from capibara_agents.runtime.cpu import read_cpu
from capibara_agents.runtime.gguf import Gguf, read_gguf
from capibara_agents.runtime.ledger import Ledger, corrected_bytes, shape_key
from capibara_agents.runtime.memory import budget_bytes, predict
from capibara_agents.runtime.tuning import tuned_settings
from capibara_agents.runtime.weights import LocalFiles, WeightStore
from capibara_agents.settings import ModelSpec, Settings


@dataclass(frozen=True)
class Size:
    """What is known of a model's memory before its start. `shape`: under which name it is remembered."""

    gguf: Gguf
    shape: str
    need_bytes: int


def size_of(spec: ModelSpec, files: LocalFiles, ledger: Ledger, engine_version: str) -> Size:
    """Predicted from the file's header, corrected by what was measured before. Raises WeightsError for a bad file."""
    gguf = read_gguf(files.weights)
    mmproj_bytes = files.mmproj.stat().st_size if files.mmproj else 0
    shape = shape_key(spec, gguf.size_bytes + mmproj_bytes, engine_version)
    return Size(gguf, shape, corrected_bytes(predict(spec, gguf, mmproj_bytes), ledger.get(shape)))


@dataclass(frozen=True)
class Misfit:
    """A model that needs more than there is."""

    model_id: str
    need_bytes: int
    budget_bytes: int

    @property
    def figures(self) -> dict[str, str]:
        """For a sentence: the model, and both numbers in GB."""
        need, budget = (f"{size / 1e9:.1f}" for size in (self.need_bytes, self.budget_bytes))
        return {"model": self.model_id, "need": need, "budget": budget}


def misfits(settings: Settings, engine_version: str) -> tuple[Misfit, ...]:
    """The models that would not fit if they were alone, of those whose weights are here and can be read."""
    store, ledger, budget = WeightStore(settings.weights_dir), Ledger(settings.data_dir), budget_bytes(settings)
    found = []
    for spec in tuned_settings(settings, read_cpu(), engine_version).models:
        if not store.is_present(spec):
            continue
        try:
            need = size_of(spec, store.files(spec), ledger, engine_version).need_bytes
        except (WeightsError, OSError):
            continue  # its own error, told when it is asked for
        if need > budget:
            found.append(Misfit(spec.id, need, budget))
    return tuple(found)
