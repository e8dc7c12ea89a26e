"""Numbers as people write them: Spanish and English separators, fractions, percentages, powers of ten, units, words.

A quantity is a value and a unit: "3,5 km" -> Fraction(7, 2), "km". What is ambiguous ("1.234") is read as grouped
thousands, unless it cannot be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from capibara_agents.answers.wordlist import listed

MAX_DIGITS = 400


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it stands in a text. `decimals` is how many were written, None where it is not a decimal."""

    value: Fraction
    unit: str
    start: int
    end: int
    decimals: int | None = 0
    percent: bool = False


# Blanks join digits in groups of three only: "1, 2" and "2020 100" are two numbers each; in "12-7" there is no sign.
_DIGITS = r"(?:\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:\{,\}\d+)*(?:[.,']\d+)*|\.\d+)"
_SIGN = r"(?:(?<![\w).,])[-+−–])?"
_CURRENCY = r"(?:(?:US)?\\?\$|€|£|¥|USD\s|EUR\s)"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?P<money>{_CURRENCY})?\s?(?P<sign2>(?<=\$)[-−])?"
    rf"(?:(?P<whole>\d+)[ ](?P<above>\d+)\s?/\s?(?P<below>\d+)(?![\d/])|(?P<digits>{_DIGITS})"
    rf"(?:\s?/\s?(?P<divisor>\d+)(?![\d/.])|\s?(?:[x×*·]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{{?\s?\(?(?P<power>[-+−]?\d{{1,3}})\)?\}}?|"
    rf"[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w))?)"
)
_AFTER = re.compile(
    r"\s?(?:\\?(?P<percent>%)|(?P<words>percent\b|per cent\b|por ?ciento\b)|(?P<scale>million(?:es|"
    r"s)?\b|mill[oó]n(?:es)?\b|"
    r"billions?\b|thousand\b|mil\b(?!\s?\d))|\\?(?P<unit>€|£|¥|\$|°[CF]?|[A-Za-zµμÀ-ÿ]{1,20}(?:\^?[23²³])?(?:/[A-Za-z]{1,6}[23²³]?)?))?",
    re.IGNORECASE,
)
_SCALE_KINDS = {"thousand": 10**3, "mil": 10**3, "billion": 10**9, "billions": 10**9}


def parse_number(text: str) -> str | None:
    """A number in Spanish or English notation as plain decimal digits; None when it is none.

    One kind of separator followed by exactly three digits groups thousands; otherwise the last one is decimal.
    """
    number = _decimal(text)
    if number is None:
        return None
    plain = format(number.normalize(), "f")
    return "0" if plain == "-0" else plain


def _decimal(text: str) -> Decimal | None:
    compact = re.sub(r"[\s']", "", text).replace("{,}", ",").rstrip(".,").replace("−", "-").replace("–", "-")
    if len(compact) > MAX_DIGITS:
        return None
    separators = [c for c in compact if c in ".,"]
    if separators:
        last = separators[-1]
        tail = compact.rpartition(last)[2]
        mixed = len(set(separators)) == 2
        if not mixed and len(separators) > 1 and any(len(part) != 3 for part in compact.split(last)[1:]):
            return None  # a version, a date, an address
        head = compact.lstrip("+-").split(last)[0]
        groups = not mixed and len(tail) == 3 and not head.startswith("0") and 0 < len(head) <= 3
        if groups:
            compact = compact.replace(last, "")
        else:
            whole, _, fraction = compact.rpartition(last)
            compact = f"{re.sub('[.,]', '', whole)}.{fraction}"
    try:
        number = Decimal(compact)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def quantities(text: str) -> list[Quantity]:
    """All numbers of a text, in order. Dates and versions (1.2.3) are none."""
    found = []
    for match in _NUMBER.finditer(text):
        quantity = _quantity(match, text)
        if quantity is not None:
            found.append(quantity)
    return found


def first_quantity(text: str) -> Quantity | None:
    """The first number of a text."""
    for match in _NUMBER.finditer(text):
        quantity = _quantity(match, text)
        if quantity is not None:
            return quantity
    return None


def _quantity(match: re.Match[str], text: str) -> Quantity | None:
    value, decimals = _value(match)
    if value is None:
        return None
    if any(sign and sign.strip() in "-−–" and sign.strip() for sign in (match["sign"], match["sign2"])):
        value = -value
    after = _AFTER.match(text, match.end())
    end, unit = match.end(), (match["money"] or "").strip().lstrip("\\").upper().replace("US$", "$")
    percent = False
    if after is not None and after.end() > match.end():
        percent = bool(after["percent"] or after["words"])
        if after["scale"]:
            value *= _scale(after["scale"])
            decimals = None
        elif after["unit"]:
            unit = unit or unit_name(after["unit"])
        end = after.end() if percent or after["scale"] or unit else end
    unit = "%" if percent else unit_name(unit) if unit else ""
    return Quantity(value, unit, match.start(), end, decimals, percent)


def _value(match: re.Match[str]) -> tuple[Fraction | None, int | None]:
    if match["whole"]:
        above, below = int(match["above"]), int(match["below"])
        return (Fraction(int(match["whole"])) + Fraction(above, below), None) if below else (None, None)
    number = _decimal(match["digits"])
    if number is None:
        return None, None
    if match["divisor"]:
        return (Fraction(number) / int(match["divisor"]), None) if int(match["divisor"]) else (None, None)
    power = match["power"] or match["exponent"]
    if power:
        exponent = int(power.replace("−", "-"))
        return Fraction(number) * Fraction(10) ** exponent, None
    decimals = -int(number.as_tuple().exponent)
    return Fraction(number), max(decimals, 0)


def _scale(word: str) -> int:
    return _SCALE_KINDS.get(word.lower(), 10**6)


# ---------------------------------------------------------------- units

# Unit -> (what it measures, how many of the first unit of that kind). Exact; NIST SP 811, appendix B.
_TABLE: dict[str, tuple[str, Fraction]] = {}
_SPELLINGS: dict[str, str] = {}


# Short names that are also words, or letters that stand for something else: "5 in total", "3 d", "2 t".
_NO_SPELLING = frozenset({"in", "d", "t", "week"})


def _measure(kind: str, *units: tuple[str, str, str]) -> None:
    for name, size, spellings in units:
        _TABLE[name] = (kind, Fraction(size))
        own = () if name in _NO_SPELLING else (name,)
        for spelling in (*own, *spellings.split()):
            _SPELLINGS[spelling] = name


_measure(
    "length",
    ("m", "1", "meter meters metre metres metro metros"),
    ("km", "1000", "kms kilometer kilometers kilometre kilometres kilómetro kilómetros kilometro kilometros"),
    ("cm", "0.01", "centimeter centimeters centimetre centimetres centímetro centímetros centimetros"),
    ("mm", "0.001", "millimeter millimeters milímetro milímetros milimetros"),
    ("mi", "1609.344", "mile miles milla millas"),
    ("ft", "0.3048", "foot feet pie pies"),
    ("in", "0.0254", "inch inches pulgada pulgadas"),
    ("yd", "0.9144", "yard yards yarda yardas"),
)
_measure(
    "mass",
    ("g", "1", "gr gram grams gramo gramos"),
    ("kg", "1000", "kgs kilo kilos kilogram kilograms kilogramo kilogramos"),
    ("mg", "0.001", "milligram milligrams miligramo miligramos"),
    ("lb", "453.59237", "lbs pound pounds libra libras"),
    ("oz", "28.349523125", "ounce ounces onza onzas"),
    ("t", "1000000", "ton tons tonne tonnes tonelada toneladas"),
)
_measure(
    "time",
    ("s", "1", "sec secs second seconds segundo segundos"),
    ("min", "60", "mins minute minutes minuto minutos"),
    ("h", "3600", "hr hrs hour hours hora horas"),
    ("d", "86400", "day days día días dia dias"),
    ("week", "604800", "weeks week semana semanas"),
)
_measure(
    "volume",
    ("l", "1", "L liter liters litre litres litro litros"),
    ("ml", "0.001", "mL milliliter milliliters mililitro mililitros"),
)
_measure("angle", ("°", "1", "degree degrees grado grados deg º"))
_measure("dollar", ("$", "1", "dollar dollars usd dólar dólares dolar dolares US$"), ("¢", "0.01", "cent cents"))
_measure("euro", ("€", "1", "euro euros eur"), ("c€", "0.01", "céntimo céntimos centimo centimos"))
_measure("pound sterling", ("£", "1", "gbp"))
_measure("speed", ("km/h", "1", "kph kmh"), ("m/s", "3.6", ""), ("mph", "1.609344", ""))


def unit_name(text: str) -> str:
    """The short name of a unit of measurement; empty for other words, which count things and are left out."""
    return _SPELLINGS.get(text) or _SPELLINGS.get(text.lower(), "")


def measured_in(unit: str) -> tuple[str, Fraction] | None:
    """What a unit measures, and its size in the first unit of that kind."""
    return _TABLE.get(unit)


# ---------------------------------------------------------------- words

_EN = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_ES = "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete"
_WORDS: dict[str, int] = {word: i for i, word in enumerate(f"{_EN} eighteen nineteen".split())}
_WORDS |= {word: i for i, word in enumerate(f"{_ES} dieciocho diecinueve".split())}
_WORDS |= {
    w: 10 * i for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
_WORDS |= {
    w: 10 * i
    for i, w in enumerate(["veinte", "treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa"], 2)
}
_WORDS |= {
    word: 20 + i
    for i, word in enumerate(
        listed(
            """
    veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve
    """
        ),
        1,
    )
}
_WORDS |= {"un": 1, "una": 1, "dieciseis": 16, "veintidos": 22, "veintitres": 23, "veintiseis": 26, "veintiún": 21}
_HUNDREDS = {"hundred": 100, "cien": 100, "ciento": 100}
_HUNDREDS |= {
    w: 100 * i
    for i, w in enumerate(
        listed(
            """
    doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos
    """
        ),
        2,
    )
}
_WORD = re.compile(r"[a-záéíóúñ]+", re.IGNORECASE)
_LINKS = frozenset({"and", "y"})


def number_in_words(text: str) -> int | None:
    """The number that a text opens with in words, below a million: "forty-two apples", "ciento veinte"."""
    total = part = 0
    seen = False
    for match in _WORD.finditer(text[:120]):
        word = match[0].lower()
        if word in _WORDS:
            part += _WORDS[word]
        elif word in _HUNDREDS:
            part = part * 100 if word == "hundred" and part else part + _HUNDREDS[word]
        elif word in ("thousand", "mil"):
            total, part = total + (part or 1) * 1000, 0
        elif not (seen and word in _LINKS):
            break
        seen = True
    return total + part if seen else None
