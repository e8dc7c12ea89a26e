"""Spanish or English, also of one word, and the language a reply is asked for; the only importer of lingua.

Character statistics (lingua) and cheap cues (¿ ñ, greetings, function words) are added up as log-odds.
Only what the asker says counts: code, addresses, quotations and pasted texts are left out where there is a rest.
"""

from __future__ import annotations

import math
import re
import threading
from typing import Any, Literal

from capibara_agents.types import Language

END_CHARS = 1500
"""Of a long text only so much of its beginning and of its end is read."""
SAMPLE_CHARS = 600
"""Statistics are sure long before; the detector's time grows with length."""

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+|\S{1,64}@\S{1,64}\.\w{1,20}")
_QUOTED = re.compile(r"\"[^\"]{2,}\"|“[^”]{2,}”|«[^»]{2,}»|(?<!\w)'[^'\n]{2,}'(?!\w)")
_LETTERS = re.compile(r"[^\W\d_]+")

_SPANISH_SIGNS = re.compile(r"[¿¡ñÑ]")
_ACCENTED = re.compile(r"\w*[áéíóúü]\w*", re.IGNORECASE)
_SPANISH_ENDING = re.compile(r"\w{2,}(?:ción|ciones|cion|mente|ando|iendo|ías|ñas?|dad)\b", re.IGNORECASE)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that tell the two apart and are common in short messages; as typed in haste, without accents.
_SPANISH_WORDS = _words(
    """
    adios ahi ahora al algo amigo amor aqui arregla asi aunque ayer ayuda ayudame bien bucle buena buenas bueno
    buenos cada cambia chao chiste claro clima como con corrige creo cual cuales cuando cuanta cuantas cuanto
    cuantos cuenta cuentame cuento dame de decir del desde despues dia dias dime donde dos ejemplo el ella ellos en
    entonces entre eres es esa escribe ese eso esta estan estas este esto estoy explica explicalo explicame fue
    gato genial gracias guapo hace hacer hasta hay haz hazlo hola hoy jaja jajaja la las le les libro lo los luego
    manana mas mañana mejor mejora mi mis mucho muy nada ni noches nos nosotros nunca otra otro oye para perdona
    perfecto pero perro por porfa porque primero puede puedes pues que quien quienes quiero raiz receta resta
    resume resumelo saludos se ser si siempre sigue sobre son soy su suma sus tal tambien tampoco tardes te tengo
    tiempo tiene tio todo traduce traducelo tu tus un una unos usa vale vamos venga ver vez y ya yo
    """
)
_ENGLISH_WORDS = _words(
    """
    about after again all also am an and another any are as at awesome be because been but by bye can cheers cool
    could day did do does dog doing done dont each explain fine fix for from get give go good goodbye got great had
    have hello help her here hey hi his house how i if in instead into is it its joke just know let like lol longer
    look love make many mine more morning much my need next nice night nope not now of off oh okay on or other our
    out over please really right sad say she shorter should show so some sorry story summarize sure tell than thank
    thanks that the their them then there these they thing this those thx to too translate try two up us use very
    want was water we well were what whats when where which who whom whose why will with without won would write
    yeah yep yes you your
    """
)

_INSTRUCTION = re.compile(
    r"^\W*(?:please|por favor|can you|could you|puedes|podr[ií]as|me)?\W*(?:translate|traduc\w*|traducir|summar\w+|"
    r"tl;?dr|res[uú]m\w*|resumir|how (?:do|would|can) \w+ say|c[oó]mo (?:se dice|digo|dir[ií]as)|give me|dame|hazme|"
    r"write|escrib\w+|redacta|explain|expl[ií]c\w+|complet[ae]|answer|respond\w*|contest\w+|read|lee|question|pregunta|"
    r"what|qu[eé]|which|cu[aá]l|fix|corrige|arregla|rewrite|reescrib\w+|analy[sz]e|analiza|review|revisa|convert|convierte|"
    r"according|seg[uú]n|based on|in (?:one|two|three|a) |en (?:una|dos|tres) )",
    re.IGNORECASE,
)

_lock = threading.Lock()
_detector: list[Any] = []


def warm() -> None:
    """Load the detector now (half a second, 66 MB) instead of at the first question."""
    _spanish_share("hola")


def detect(text: str) -> tuple[Language, float]:
    """The language of what the asker says, and the probability of it, in [0.5, 1]; 0.5 where nothing speaks."""
    return detect_said(asked(text))


def detect_said(said: str) -> tuple[Language, float]:
    """As `detect`, of what `asked` has left of a text."""
    sample = said[:SAMPLE_CHARS]
    if not _LETTERS.search(sample):
        return "en", 0.5
    odds = _odds_of_statistics(sample) + _odds_of_cues(sample)
    spanish = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
    return ("es", spanish) if spanish > 0.5 else ("en", 1 - spanish)


def asked(text: str) -> str:
    """A text without code, addresses, quotations, and without what is pasted under or over an instruction."""
    if len(text) > 2 * END_CHARS:
        text = f"{text[:END_CHARS]}\n{text[-END_CHARS:]}"
    bare = _ADDRESS.sub(" ", _CODE.sub(" ", text))
    without_quotes = _QUOTED.sub(" ", bare)
    if len(_LETTERS.findall(without_quotes)) >= 2:
        bare = without_quotes
    return _instruction_of(bare) or bare


def _instruction_of(text: str) -> str:
    """The instruction that stands before a colon or a line break, or in the last line; empty where there is none."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return ""
    head, colon, rest = lines[0].partition(":")
    if colon and rest.strip() and _is_instruction(head):
        return head
    if len(lines) == 1:
        return ""
    parts = [line for line in (lines[0], lines[-1]) if _is_instruction(line)]
    return " ".join(parts)


def _is_instruction(line: str) -> bool:
    words = _LETTERS.findall(line)
    return 2 <= len(words) <= 40 and bool(_INSTRUCTION.match(line) or line.endswith("?") or line.startswith("¿"))


def _odds_of_statistics(text: str) -> float:
    """Log-odds of Spanish from characters, trusted less the fewer words there are."""
    share = min(1 - 1e-6, max(1e-6, _spanish_share(text)))
    words = len(_LETTERS.findall(text))
    return math.log(share / (1 - share)) * min(1.5, 0.5 + 0.1 * words)


def _odds_of_cues(text: str) -> float:
    """Log-odds of Spanish from signs, accents and common words, per word of the text beyond the first few."""
    words = [word.lower() for word in _LETTERS.findall(text)]
    balance = sum((word in _SPANISH_WORDS) - (word in _ENGLISH_WORDS) for word in words)
    accents = min(3, len(_ACCENTED.findall(text)))
    endings = min(3, len(_SPANISH_ENDING.findall(text)))
    signs = 4.0 if _SPANISH_SIGNS.search(text) else 0.0
    return signs + 1.2 * accents + 0.8 * endings + 2.0 * balance / max(1.0, len(words) / 6)


def _spanish_share(text: str) -> float:
    return float(_loaded().compute_language_confidence(text, _loaded_spanish()))


def _loaded() -> Any:
    if not _detector:
        with _lock:
            if not _detector:
                from lingua import Language as Tongue  # noqa: PLC0415  (late: 66 MB)
                from lingua import LanguageDetectorBuilder  # noqa: PLC0415

                builder = LanguageDetectorBuilder.from_languages(Tongue.ENGLISH, Tongue.SPANISH)
                _detector.extend((builder.with_preloaded_language_models().build(), Tongue.SPANISH))
    return _detector[0]


def _loaded_spanish() -> Any:
    return _detector[1]


# ---------------------------------------------------------------- the language of the reply

_TONGUE = (
    r"(?P<tongue>ingl[eé]s|english|espa[nñ]ol|castellano|spanish|castilian|franc[eé]s|french|alem[aá]n|german|italiano|"
    r"italian|portugu[eé]s|portuguese|catal[aá]n|catalan|gallego|galician|euskera|basque|chino|chinese|japon[eé]s|"
    r"japanese|ruso|russian|[aá]rabe|arabic|lat[ií]n|coreano|korean|polaco|polish|holand[eé]s|dutch|sueco|swedish|"
    r"turco|turkish|griego|greek|hindi|rumano|romanian|mandar[ií]n|ucraniano|ukrainian|hebreo|hebrew)"
)
_ASKED_IN = re.compile(
    r"(?P<no>\b(?:no|not|don'?t|never|sin|nunca)\s+(?:me\s+)?)?"
    r"\b(?:resp[oó]nd\w*|respuesta|contest\w+|escr[ií]b\w+|expl[ií]c\w+|dime\w*|d[ií](?:melo|lo)|hazlo|redact\w+|"
    r"res[uú]m\w+|h[aá]bla\w*|cu[eé]nta\w*|answer\w*|reply|replies|respond\w*|response|write|explain|tell|summari[sz]e|"
    r"say it|talk|speak|give me|describe)\b[^.!?\n:]{0,60}?\b(?:en|in)\s+" + _TONGUE + r"\b",
    re.IGNORECASE,
)
_ADDED = re.compile(
    r"(?:^|[,;.(—-])\s*(?:pero\s+|but\s+|y\s+|and\s+)?(?:todo\s+|all\s+)?(?:en|in)\s+"
    + _TONGUE
    + r"\s*(?:,?\s*(?:por favor|please|porfa))?\s*[.!)]*\s*$"
    r"|\b(?:en|in)\s+(?P<tongue2>ingl[eé]s|english|espa[nñ]ol|castellano|spanish),?\s+(?:por favor|porfa|please)\b"
    r"|^\s*(?:en|in)\s+(?P<tongue3>ingl[eé]s|english|espa[nñ]ol|castellano|spanish)\s*[:,]",
    re.IGNORECASE,
)
_TRANSLATED = re.compile(
    r"\b(?:trad[uú]c\w*|traducci[oó]n|translat\w+|p[aá]sa(?:lo|melo|la|r|me)?|pon(?:lo|melo)?|convert|render|turn)\b"
    r"[^.!?\n]{0,80}?\b(?:al|a|en|into|to|in)\s+(?:el\s+)?" + _TONGUE + r"\b",
    re.IGNORECASE,
)
_TRANSLATION = re.compile(
    r"\b(?:trad[uú]c\w*|traducci[oó]n|translat\w+|c[oó]mo (?:se dice|digo|dir[ií]as|se dir[ií]a)|how (?:do|would|can) "
    r"\w+ say)\b",
    re.IGNORECASE,
)

Asked = Language | Literal["other", "open"] | None


def asked_language(text: str) -> Asked:
    """What is asked of the reply's language: es, en, `other` tongue, `open` (a translation without target), or None."""
    return _wish(asked(text), _ends(text))


def _wish(said: str, ends: str) -> Asked:
    for pattern in (_TRANSLATED, _ASKED_IN, _ADDED):
        match = pattern.search(said[:SAMPLE_CHARS]) or pattern.search(ends)
        if match:
            found = match.groupdict()
            if found.get("no"):
                return None
            return _tongue(found.get("tongue") or found.get("tongue2") or found.get("tongue3") or "")
    return "open" if _TRANSLATION.search(said[:SAMPLE_CHARS]) else None


def reply_language(text: str, language: Language, confidence: float, *, said: str | None = None) -> Language | None:
    """The language the answer is checked against: the one asked for, else the question's, None where it is open.

    `said` is `asked(text)`, from who has it: of a long text it takes half a millisecond.
    """
    said = asked(text) if said is None else said
    found = _wish(said, _ends(text))
    if found is not None:
        return found if found == "es" or found == "en" else None  # noqa: PLR1714  (mypy narrows only so)
    return language if confidence >= 0.65 and _LETTERS.search(said) else None


def _ends(text: str) -> str:
    """First and last 200 characters without quotations and code: a wish often stands behind what is pasted."""
    if len(text) <= 400:
        return _QUOTED.sub(" ", _CODE.sub(" ", text))
    head, tail = (_QUOTED.sub(" ", _CODE.sub(" ", part)) for part in (text[:END_CHARS], text[-END_CHARS:]))
    return f"{head[:200]}\n{tail[-200:]}"


def _tongue(name: str) -> Asked:
    plain = name.lower()
    if plain.startswith(("ingl", "engl")):
        return "en"
    return "es" if plain.startswith(("espa", "cast", "spanish")) else "other"
