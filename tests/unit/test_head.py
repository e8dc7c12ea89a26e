"""The fitted head: its shape, its provenance, and that numbers for other features are refused."""

import json
from importlib import resources

import numpy as np
import pytest

from capibara_agents.embedder import DIMENSIONS
from capibara_agents.exemplars import content_version, shipped_exemplars
from capibara_agents.features import SURFACE, Features, surface
from capibara_agents.head import COLUMNS, DOMAINS, Head, columns

PLAIN = Features(evidence={"sql": 3.0}, structure=0.0, surface=surface("select 1"), prompt_tokens=3)


def test_it_gives_probabilities() -> None:
    """Over all domains, summing to 1, for any vector."""
    head = Head.shipped()
    assert head is not None
    for vector in (np.zeros(DIMENSIONS, np.float32), np.ones(DIMENSIONS, np.float32)):
        found = head(vector, PLAIN)
        assert set(found) == set(DOMAINS)
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
        assert min(found.values()) >= 0


def test_words_speak_for_their_domain() -> None:
    """Evidence for SQL raises SQL."""
    head = Head.shipped()
    assert head is not None
    vector = np.zeros(DIMENSIONS, np.float32)
    silent = PLAIN.model_copy(update={"evidence": {}})
    assert head(vector, PLAIN)["sql"] > head(vector, silent)["sql"]


def test_other_weights_are_refused() -> None:
    """A head of another version must not decide at random."""
    with pytest.raises(ValueError, match="shape"):
        Head(np.zeros((COLUMNS - 1, len(DOMAINS)), np.float32))


def test_columns_are_as_many_as_weights() -> None:
    """The vector, evidence, surface and a constant."""
    assert columns(np.zeros(DIMENSIONS, np.float32), PLAIN).shape == (COLUMNS,)
    assert len(surface("")) == len(surface("a\nb) c?")) == len(SURFACE)


def test_its_provenance_is_beside_it() -> None:
    """Sources with permissive licences, the seed, the command; fitted on the exemplars as they ship."""
    folder = resources.files("capibara_agents").joinpath("head_data")
    told = json.loads(folder.joinpath("PROVENANCE.json").read_text(encoding="utf-8"))
    assert {"what", "command", "rows", "licences", "seed", "penalty", "embedder"} <= set(told)
    assert set(told["licences"].values()) <= {"MIT", "Apache-2.0", "BSD-3-Clause"}
    assert told["exemplars_version"] == content_version(shipped_exemplars(), told["embedder"])
    assert len(folder.joinpath("head.npz").read_bytes()) < 200_000
