"""Folding: what typing does not change."""

import pytest

from capibara_agents.fold import fold


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("¿Cuántos AÑOS tienes?", " cuantos anos tienes?"),
        ("cafe\u0301", "cafe"),
        ("«Él» dijo “no”", '"el" dijo "no"'),
        ("don’t", "don't"),
        ("a\nb\tc", "a\nb\tc"),
        ("`x = 1`", "`x = 1`"),
        ("שלום 你好 😀", "שלום 你好 😀"),
        ("", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    """Case, accents and opening signs go; line breaks, code and other scripts stay."""
    assert fold(text) == folded


def test_folding_twice_changes_nothing() -> None:
    """It is a normal form."""
    once = fold("¡Qué PINGÜINO, İstanbul!")
    assert fold(once) == once
