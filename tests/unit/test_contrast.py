"""The fitted projection: questions of one subject come nearer, and it is left out where its numbers do not fit."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from capibara_agents import contrast, expectations
from capibara_agents.contrast import CONTRAST_SIZE, Contrast, shipped_contrast
from capibara_agents.embedder import Embedder
from capibara_agents.expectations import Beliefs, Evidence, Fit
from capibara_agents.signature import FORM_SIZE, SIGNATURE_SIZE, signature

SUBJECTS = (
    ("What is the derivative of x^3 at x = 2?", "Find the integral of 2x dx from 0 to 3."),
    ("Which enzyme unwinds DNA in a cell?", "In which organelle of a cell are proteins folded?"),
    ("A contract was signed under duress. May a court void it?", "Is a landlord liable in tort for the defect?"),
)


def shipped() -> Contrast:
    found = shipped_contrast()
    assert found is not None
    return found


def test_questions_of_one_subject_are_nearer_than_others() -> None:
    embedder = Embedder()
    texts = [text for pair in SUBJECTS for text in pair]
    signatures = np.stack([signature(t, v) for t, v in zip(texts, embedder.embed_many(texts), strict=True)])
    found = shipped()(signatures)
    assert found.shape == (6, CONTRAST_SIZE)
    distances = np.linalg.norm(found[:, None] - found[None], axis=2) + 1e9 * np.eye(6)
    assert distances.argmin(1).tolist() == [1, 0, 3, 2, 5, 4]


def test_numbers_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        dataclasses.replace(shipped(), centre=np.zeros(FORM_SIZE + 1, dtype=np.float32))


def evidence(count: int = 60) -> Evidence:
    rng = np.random.default_rng(0)
    signatures = (0.02 * rng.normal(size=(count, SIGNATURE_SIZE))).astype(np.float32)
    return Evidence.complete(("a", "b"), signatures, (rng.random((count, 2)) < 0.5).astype(float))


def test_what_is_expected_follows_the_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    known = evidence()
    with_it = Fit.of(known, Beliefs(contrast=0.5)).left_out(np.arange(60))
    monkeypatch.setattr(expectations, "shipped_contrast", lambda: None)
    without = Fit.of(known, Beliefs(contrast=0.5)).left_out(np.arange(60))
    assert not np.allclose(with_it, without)
    assert np.isfinite(without).all()


@pytest.mark.parametrize("kept", [0, 2000])
def test_a_damaged_file_is_a_warning(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = resources.files("capibara_agents").joinpath("head_data", "contrast.npz").read_bytes()
    (tmp_path / "head_data").mkdir()
    (tmp_path / "head_data" / "contrast.npz").write_bytes(whole[:kept])
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    assert contrast.shipped_contrast.__wrapped__() is None
    assert "not used" in caplog.text
