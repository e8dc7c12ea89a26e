"""Language of the question and of the reply: the real detector."""

import pytest

from capibara_agents import language

SHORT_SPANISH = [
    "hola",
    "gracias",
    "buenas noches",
    "sí",
    "adiós",
    "¿por qué?",
    "y en java?",
    "que hora es",
    "tengo hambre",
    "perro",
    "chiste",
    "suma 2+2",
    "no entiendo",
    "vale",
    "ayuda",
    "claro que si",
    "mas corto",
    "explica css grid",
    "area del triangulo",
    "lista de numeros primos",
]
SHORT_ENGLISH = [
    "hi",
    "thanks",
    "good night",
    "yes",
    "bye bye",
    "why",
    "and in java?",
    "what time",
    "i'm hungry",
    "dog",
    "joke",
    "add 2+2",
    "i don't get it",
    "sure",
    "help",
    "of course",
    "shorter",
    "explain css grid",
    "triangle area",
    "list of prime numbers",
]


@pytest.mark.parametrize("text", SHORT_SPANISH)
def test_short_spanish(text: str) -> None:
    """One to four words, as typed."""
    assert language.detect(text)[0] == "es"


@pytest.mark.parametrize("text", SHORT_ENGLISH)
def test_short_english(text: str) -> None:
    """One to four words, as typed."""
    assert language.detect(text)[0] == "en"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Traduce al español: "They were walking home in the rain when the storm began."', "es"),
        ("Translate to English: mañana iremos todos juntos a la playa si hace buen tiempo", "en"),
        (
            "Summarize the following article.\n\nEl ayuntamiento aprobó ayer la ampliación del puerto.",
            "en",
        ),
        (
            "The council voted to close the pool and the residents are angry about it.\n\nResume el texto anterior.",
            "es",
        ),
        (
            "¿Qué hace esta función?\n```python\ndef the_list_of_words_that_are_here(text): return text.split()\n```",
            "es",
        ),
        ("cómo hago un merge en git sin perder mis commits", "es"),
        ("mira https://www.example.com/the-best-way-to-write-english-texts y dime", "es"),
    ],
)
def test_what_the_asker_says_counts(text: str, expected: str) -> None:
    """Quotations, pasted texts, code and addresses do not."""
    assert language.detect(text)[0] == expected


@pytest.mark.parametrize("text", ["", "   ", "😀", "2+2", "\x00", "123", "```\ncode here\n```"])
def test_nothing_to_go_by_is_a_coin_toss(text: str) -> None:
    """The confidence says so, and the reply's language stays open."""
    tongue, confidence = language.detect(text)
    assert confidence == 0.5
    assert language.reply_language(text, tongue, confidence) is None


@pytest.mark.parametrize(
    "text", ["x" * 200_000, "a@" * 50_000, '"' * 10_000, "`" * 10_000, "¿" * 5000, "שלום עולם", "<b>" * 9000]
)
def test_any_text_is_detected(text: str) -> None:
    """Never an exception, always a probability."""
    tongue, confidence = language.detect(text)
    assert tongue in ("es", "en")
    assert 0.5 <= confidence <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("respóndeme en inglés: qué es la inflación", "en"),
        ("respondeme en ingles por favor, que es un quark", "en"),
        ("Answer in Spanish: what is a noun", "es"),
        ("what is a black hole? in English please", "en"),
        ("traduce al inglés: hola", "en"),
        ("Translate into Spanish the sentence below.", "es"),
        ("explica la recursividad, en inglés", "en"),
        ("The pool will close in May. Residents are angry. Respond in Spanish.", "es"),
        ("en castellano, por favor", "es"),
        ("Translate to French: hi", None),
        ("¿Cómo se dice gato en inglés?", None),
        ("no me respondas en inglés, por favor", None),
        ("Translate 'responde en inglés' to German", None),
        ('qué significa "answer in Spanish"?', None),
        ("dime en qué país se habla inglés", None),
        ("¿Cuántas personas hablan español en Estados Unidos?", None),
        ("hola", None),
        ("", None),
    ],
)
def test_the_reply_language_that_is_asked_for(text: str, expected: str | None) -> None:
    """Only where the asker says so, and not in what is quoted."""
    assert language.reply_language(text, "en", 0.5) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("¿Qué es un agujero negro?", "es"),
        ("What is a black hole?", "en"),
        ("¿Qué es un agujero negro? Contesta en inglés.", "en"),
        ("Traduce al alemán: buenos días", None),
        ("traduce esto: good morning", None),
        ("How do you say dog in Spanish?", None),
    ],
)
def test_reply_language(text: str, expected: str | None) -> None:
    """The one asked for, else the question's; open for a translation into neither."""
    assert language.reply_language(text, *language.detect(text)) == expected
