"""What points at a domain: keywords and shapes with their log-odds. Patterns see folded text (`fold`).

`SIGNS` are looked for in the whole text, what frames.py has only where an instruction over a pasted text stands.
"""

from __future__ import annotations

import re

from capibara_agents.types import Domain

Sign = tuple[Domain, float, re.Pattern[str]]


def sign(domain: Domain, weight: float, pattern: str) -> Sign:
    """A pattern that adds `weight`, in log-odds, to a domain."""
    return domain, weight, re.compile(pattern, re.MULTILINE)


_KIN = (
    r"(?:father|mother|brother|sister|son|daughter|uncle|aunt|cousin|nephew|niece|grand(?:father|mother|son|"
    r"daughter)|"
    r"padre|madre|herman[oa]s?|hij[oa]s?|ti[oa]|prim[oa]|sobrin[oa]|abuel[oa]|niet[oa])"
)
SIGNS = (
    sign("sql", 3.0, r"\b(?:sql|sqlite|postgres(?:ql)?|mysql|mariadb|t-sql|pl/sql)\b"),
    sign("sql", 3.0, r"\bselect\b[^?]{1,200}\bfrom\b[^?]{0,200}(?:\bwhere\b|\bjoin\b|\bgroup by\b|\border by\b|;)"),
    sign("sql", 3.0, r"\b(?:insert into|create table|alter table|drop table|left join|inner join|group by)\b"),
    sign("coding", 2.0, r"```"),
    sign(
        "coding",
        2.5,
        r"^[ \t]*(?:def \w+\(|class \w+[:({]|#include|import \w+|from \w+ import|public (?:static|class)|func )",
    ),
    sign("coding", 2.0, r"\b(?:traceback|nullpointer\w*|segfault|stack ?trace|typeerror|keyerror|syntaxerror)\b"),
    sign(
        "coding",
        1.5,
        r"\b(?:python|javascript|typescript|java|golang|rust|kotlin|c\+\+|c#|php|ruby|bash|docker\w*|kubernetes|git|"
        r"regex|graphql|apis?|ci/cd|pipeline|endpoint|html|css|react|django|fastapi|pytest|numpy|pandas)\b",
    ),
    sign(
        "coding",
        1.5,
        r"\b(?:codigo|funcion|function|code|algorithm|algoritmo|script|bug|compil\w+|refactor\w*|metodo|method)\b",
    ),
    sign("coding", 2.5, r"^[^\w\n]*(?:devuelve|return|implementa|implement|refactori[sz]a|refactor|debug)\b"),
    sign(
        "coding",
        3.0,
        r"\b(?:devuelv\w+|returns?|retorn\w+)\b[^.\n]{0,80}\b(?:true|false|none|null|tuplas?|tuples?|cadenas?|"
        r"strings?|listas?|"
        r"lists?|arrays?|arreglos?|dictionar\w+|diccionario)\b|\b(?:cadena|string|lista|list|array|arreglo|"
        r"diccionario|"
        r"entero)s?\b[^.\n]{0,80}\b(?:devuelv\w+|returns?)\b",
    ),
    sign(
        "coding",
        3.0,
        r"\b(?:escrib\w+|write|crea|create|implement\w*|define|genera|haz|hazme|make|need|necesito)\b[^.?!\n]{0,30}"
        r"\b(?:funcion|function|programa|program|script|clase en|class (?:in|that)|metodo|method|decorator)\b",
    ),
    sign("sql", 1.5, r"\b(?:consulta|query)\b[^.?!\n]{0,12}\b(?:para|que|to|that|con|for|with)\b"),
    sign("math", 2.5, r"\$[^$\n]+\$|\\(?:frac|sqrt|int|sum|cdot|begin)\b"),
    sign(
        "math",
        2.5,
        r"(?<![\w.-])\d+(?:[.,]\d+)?(?:\s*(?:[+*^×÷%]|\bx\b|(?<!\d)/)\s*|\s-\s*|\s*/\s*(?!\d+/)|"
        r"-(?=\d+\s*(?:[=?+*/]|$)))\(?\d",
    ),
    sign(
        "math",
        1.5,
        r"\b(?:equation|ecuacion|derivative|derivada|integral|polynomial|polinomio|probability|probabilidad|"
        r"triangle|triangulo|perimeter|perimetro|percent|por ?ciento|prime|primos?|divisor|modulo|remainder)\b",
    ),
    sign(
        "logic_reasoning",
        1.5,
        r"\b(?:premis\w+|silogismo|syllogism|deduc\w+|infer\w*|acertijo|riddle|"
        r"(?:puede|podemos) concluir|can (?:we|you) conclude|(?:does )?it follow)\b",
    ),
    sign(
        "logic_reasoning",
        3.0,
        r"\b(?:all|every|no|some|tod[oa]s|ningun[oa]?|algun[oa]s)\b[^?\n]{3,60}\b(?:are|is|has|have|son|es|tienen?|"
        r"wear|llevan)"
        r"\b[^?\n]{1,80}\b(?:all|every|no|some|tod[oa]s|ningun[oa]?|algun[oa]s|if|is an?|es un|then|"
        r"entonces)\b[^?\n]*\?",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"\b(?:siempre mienten?|mienten? siempre|dicen? (?:siempre )?la verdad|always lies?|tells? the truth)\b|"
        r"\b(?:mas \w+ que|\w+er than|more \w+ than)\b.{3,60}\b(?:mas \w+ que|\w+er than|more \w+ than)\b",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"\b(?:(?:must|could|has to|cannot) be (?:true|false)|can be (?:inferred|deduced)|"
        r"necesariamente (?:ciert|verdad|fals)|"
        r"(?:debe|puede|tiene que) ser (?:ciert|verdad|fals)|se (?:deduce|infiere|sigue)|if true|de ser ciert)",
    ),
    sign(
        "logic_reasoning",
        1.5,
        r"\b(?:falacias?|fallac(?:y|ies)|silogismos?|weakens?|strengthens?|debilita|refuerza|assum(?:es|ptions?)|"
        r"supuesto|"
        r"presupone|contradiccion|paradox|paradoja|argumento|reasoning|razonamiento|logicamente|logically)\b",
    ),
    sign(
        "other",
        1.5,
        r"\b(?:redacta|escrib\w+|write|draft|haz|hazme|make|improve|mejora|corrige|proofread|reescrib\w+|rewrite)\b"
        r"[^.?!\n]{0,40}\b(?:correo|e-?mail|carta|letter|cv|curriculum|resume|post|publicacion|descripcion|"
        r"description|"
        r"parrafo|paragraph|texto|text|ortografia|spelling|faltas|tono|tone|lista|list|tabla|table|plan|menu)\b",
    ),
    sign(
        "other",
        2.0,
        r"\b(?:recomiend\w+|recommend\w*|suggest\w*|sugiere\w*|pros|contras|ideas? (?:para|for)|receta|"
        r"recipe|cocin\w+|cook|consejos?|advice|tips)\b",
    ),
    sign("other", 1.5, r"^[^\w\n]*(?:plan|planifica|organi[sz]\w+|prioriti[sz]\w+|weigh|should i|deberia)\b"),
    sign(
        "other",
        2.5,
        r"^[^\w\n]*(?:analiza|analy[sz]e|evalua\w*|evaluate|assess|compara|compare)\b"
        r"(?! (?:est[aeo]s?|el siguiente|la siguiente|mi|this|these|the following|my)\b)",
    ),
    sign(
        "other",
        1.5,
        r"^[^\w\n]*(?:analiza|analy[sz]e|evalua\w*|evaluate|assess|compara|compare)\b|"
        r"\b(?:ventajas|desventajas|inconvenientes|implicaciones|advantages|disadvantages|drawbacks|implications)\b|"
        r"\b(?:what are the|cuales son los) (?:benefits|beneficios|risks|riesgos)\b",
    ),
    sign("factual_qa", 1.0, r"^[^\w\n]*(?:explica(?:me)?|explain|tell me about|hablame de|history of|historia de)\b"),
    sign(
        "creative_writing",
        2.5,
        r"\b(?:escrib\w+|inventa\w*|compon\w*|redacta|crea\w*|write|compose|invent|make up|hazme|dame|imagina\w*)\b"
        r"[^.?!\n]{0,40}\b(?:poema|cuento|historia|relato|cancion|novela|personaje|dialogo|verso|soneto|haiku|"
        r"fabula|leyenda|microrrelato|guion|poem|story|tale|song|lyrics|novel|character|sonnet|verse|fable|limerick|"
        r"screenplay|dialogue|monologue)\b",
    ),
    sign("creative_writing", 4.0, r"^[^\w\n]*wp\b\W"),
    sign(
        "other",
        2.5,
        r"^[^\w\n]*(?:reescrib\w+|rewrite|reformula|rephrase|paraphrase|parafrasea|corrige|proofread|punctuate)\b|"
        r"\b(?:voz pasiva|passive voice)\b",
    ),
    # A schema written out: tables with their columns in brackets, or a task put to a table's columns.
    sign(
        "sql",
        3.5,
        r"\b(?:tables?|tablas?|schema|esquema|database|base de datos)\b[^?\n]{0,40}\b\w+ ?\( ?\w+(?: ?, ?\w+)+",
    ),
    sign(
        "sql",
        3.0,
        r"\b(?:columns?|columnas?|tables?|tablas?|rows?|filas?)\b[^\n]{0,160}\b(?:query|consulta|select|sentencia|"
        r"statement)\b",
    ),
    sign("sql", 3.0, r"\b(?:to|into|in|as|a|en|al) (?:an? |una? )?sql\b"),
    # Puzzles: who is what to whom, who has what after a swap, where things are, which day it is, riddles.
    sign("logic_reasoning", 2.5, rf"\b{_KIN}\b.{{0,160}}\b(?:related to|relation|parentesco)\b"),
    sign(
        "logic_reasoning",
        2.5,
        rf"\b{_KIN}\b[^?.;,]{{0,40}}[.;,] [^?]{{0,60}}\b(?:who|what|how|quien|que|como) (?:is|es)\b",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"\b(?:swap\w*|trad(?:e|es|ed|ing)|exchang\w*|intercambi\w*|se (?:l[oa]s |la |lo )?(?:re)?cambia\w*|"
        r"switch(?:es)?)\b"
        r".{3,200}\b(?:swap\w*|trad(?:e|es|ed|ing)|exchang\w*|intercambi\w*|cambia\w*|then|luego|end|"
        r"final)\b.{3,160}\?",
    ),
    sign(
        "logic_reasoning",
        3.0,
        r"\b(?:went|goes|moved?|travell?ed|walk(?:s|ed)|put|puts|left|took|takes|picked|dropped|is in the|fue|va|"
        r"paso|"
        r"marcho|cogio|coge|dejo|puso|pone|llevo|esta en (?:la|el))\b[^?]{3,80}\.[^?]{3,400}"
        r"\b(?:where (?:is|was|will|does)|donde (?:esta|estaba|busca\w*))\b",
    ),
    sign(
        "logic_reasoning",
        3.0,
        r"\b(?:yesterday|today|tomorrow|ayer|anteayer|hoy|manana)\b.{3,120}\b(?:what|which|que|cual|a que) "
        r"(?:\w+ ){0,4}?(?:day|date|dia|fecha)\b",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"\b(?:next|sigue|viene|comes|falta|missing|replace|sustituye)\b.{0,40}\b(?:sequence|series?|secuencia|"
        r"letters?|"
        r"letras?|question mark|interrogante)\b|\b(?:sequence|series?|secuencia|letters?|letras?)\b.{0,40}\b(?:next|"
        r"sigue|"
        r"viene|comes|falta|missing)\b",
    ),
    sign(
        "logic_reasoning",
        3.0,
        r"^[^\w\n]*(?:what (?:has|have|goes|gets|can|runs|comes|kind|is (?:full|always|so))|que (?:tiene|sube|corre|"
        r"cae|se|esta|es lo))\b[^?.,]{2,50}(?:\bbut\b|\band (?:no|never|still|yet)\b|,? y no\b|\bpero (?:no|nunca)\b|"
        r", (?:no|nunca) )[^?]{2,60}\?",
    ),
    sign(
        "logic_reasoning", 3.5, r"\b(?:what|who) am i\W*$|\bque (?:soy|son)\W*$|\bquien soy\W*$|\badivinanza|\bacertijo"
    ),
    sign(
        "logic_reasoning",
        5.0,
        r"\A\W*(?:(?:evaluate|evalua|the|la|boolean|booleana|expression|expresion|what|que|true|false|not|and|or|is|"
        r"verdader[oa]|fals[oa]|ciert[oa]|no|y|o|es)\b[\s():?]*){5,}\Z",
    ),
    sign(
        "logic_reasoning",
        3.0,
        r"\b(?:premis\w+|hypothesis|hipotesis|claim|afirmacion)\b.{3,}\b(?:entail\w*|contradict\w*|"
        r"contradic\w*|implica\w*|neutral|follow|se sigue)\b",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"\b(?:turn|gir[ao]|giras|date la vuelta)\b.{0,200}\b(?:turn|gir[ao]|giras|date la vuelta|twice|"
        r"dos veces)\b.{0,160}\?",
    ),
    sign(
        "logic_reasoning",
        2.0,
        r"\b(?:left|right|above|below|next to|opposite|izquierda|derecha|encima|debajo|junto|enfrente|north|"
        r"norte) (?:of|from|a|"
        r"de|del|al)\b.{3,200}\b(?:which|who|what|where|cual|quien|que|donde|could|podria)\b",
    ),
    # A task on a text that is given, and texts for use.
    sign(
        "other",
        2.5,
        r"^[^\w\n]*(?:extract|extrae|pull|saca|classify|clasifica|label|etiqueta|categori[sz]\w*|sort|ordena|format|"
        r"tag|list (?:all|every|the)|lista l[oa]s)\b",
    ),
    sign(
        "other",
        2.0,
        r"\b(?:sentiment|sentimiento|positive or negative|positiv[ao] o negativ[ao]|spam)\b",
    ),
    sign(
        "other",
        2.0,
        r"\b(?:product description|descripcion (?:de|del) producto|job (?:ad|description)|oferta de empleo|slogan|"
        r"eslogan|"
        r"lema|cover letter|carta de presentacion|flyer|folleto)\b",
    ),
    sign(
        "creative_writing",
        2.0,
        r"^[^\w\n]*(?:pretend|act as|role-?play|juego de rol|imagin[ae] (?:you|que (?:eres|soy|fueras))|"
        r"haz (?:como que|de)|"
        r"finge|continue (?:the|this) (?:story|tale)|(?:continua|sigue|termina) (?:el|la|esta|este) (?:cuento|"
        r"historia|relato))\b",
    ),
    # Two relations with their columns, or a table described by its columns: a question to a database.
    sign("sql", 3.5, r"\b\w+ ?\(\w+(?:_id)?(?:, ?\w+)+\)[,;.\n ]{1,3}\w+ ?\(\w+(?:, ?\w+)+\)"),
    sign("sql", 3.5, r"\b(?:table|tabla)\b ?:.{1,80}\b(?:columns?|columnas?)\b ?:"),
    sign("sql", 2.5, r"\b(?:tables|tablas) ?: ?\w+(?:, ?\w+)+"),
    # One thing is to another as a third to what; all of these are those, is this one of them?
    sign("logic_reasoning", 4.0, r"\bis to\b.{2,40}\bas\b.{2,40}\bis to\b|\bes a\b.{2,40}\bcomo\b.{2,40}\bes a\b"),
    sign("logic_reasoning", 3.0, r"\A\W*\w+ ?: ?\w+ ?(?:::|as|como) ?\w+ ?: ?(?:\?|\w+|_+|\.+)\W*\Z"),
    sign(
        "logic_reasoning",
        2.5,
        r"(?:\A|[.;] )\W{0,4}(?:all|every|no|some|tod[oa]s?(?: l[oa]s)?|ningun[oa]?|algun[oa]s) "
        r"(?!my|our|your|mis|tus|nuestr)\w+ (?:\w+ ){0,4}?\w+[.;,] "
        r"[^?]{0,120}(?:[.;] )?\W{0,4}(?:so|does|do|is|are|must|can|will|therefore|luego|entonces|es|son|tiene|"
        r"puede)\b"
        r"[^?\n]{2,60}\?\W*\Z",
    ),
    sign(
        "logic_reasoning", 3.0, r"\bodd one out\b|\b(?:cual|que palabra) (?:sobra|no encaja)\b|\b(?:not|n't) belong\b"
    ),
    sign("coding", 2.5, r"\b(?:input format|formato de entrada|number of test cases|numero de casos|test cases?)\b"),
    sign("sql", 2.5, r"\b(?:database|base de datos)\b.{0,40}\b(?:tables?|tablas?)\b"),
    sign(
        "coding",
        3.0,
        r"\b(?:test case|caso de prueba|cada caso|each case|constraints|restricciones)\b.{0,200}\b(?:print|"
        r"imprim\w+|output|salida|"
        r"<=)|\b(?:print|imprim\w+|output|salida)\b.{0,120}\b(?:constraints|restricciones|<=)",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"\b(?:complet[ea]|continu[ea]|sigue|extend)\b.{0,20}\b(?:pattern|patron|series?|sequence|secuencia|analogy|"
        r"analogia)\b",
    ),
    sign("creative_writing", 3.0, r"^\W*\[?(?:wp|relato|writing prompt|prompt)\W"),
    sign(
        "creative_writing",
        2.0,
        r"^[^\w\n]*(?:an?|una?) (?:\w+ )?(?:ode|poem|haiku|limerick|sonnet|ballad|verse|fable|rap|song|oda|poema|"
        r"haiku|quintilla|"
        r"soneto|balada|copla|fabula|rap|cancion|cuento)\b",
    ),
    sign("vision", 1.5, r"\b(?:imagen|foto|fotografia|captura|image|photo|picture|screenshot)\b"),
    sign(
        "long_context",
        2.5,
        r"\b(?:document\w*|texto|text|story|historia|capitulo|chapter|relato|novela|informe|report|"
        r"transcri\w+)\b[^\n]{0,60}\b(?:below|above|following|anterior|siguiente|arriba|abajo|completo|entero|whole|"
        r"entire)\b",
    ),
)
