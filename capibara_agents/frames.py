"""What an instruction looks like, with its log-odds, where it stands: at the beginning or the end of what it is about.

`FRAMES` say what is to be done with a pasted text; `PLAIN_WORDS` what is asked for without the words of its trade, as
people on either side of the ocean type it. Patterns see folded text (`fold`).
"""

from __future__ import annotations

from capibara_agents.signs import sign

_TONGUE = (
    r"(?:english|spanish|french|german|italian|portuguese|japanese|chinese|russian|arabic|latin|korean|catalan|"
    r"quechua|guarani|nahuatl|dutch|polish|swedish|turkish|greek|ukrainian|romanian|hindi|hebrew|basque|galician|"
    r"ingles[ae]?|espanol[ae]?|castellan[ao]|frances[ae]?|aleman[ae]?|italian[ao]|portugues[ae]?|japones[ae]?|"
    r"chin[ao]|"
    r"rus[ao]|arabe|coreano|catalan[ae]?|holandes|polaco|sueco|turco|griego|ucraniano|rumano|hebreo|euskera|gallego)"
)
FRAMES = (
    sign("translation", 4.5, r"\b(?:traduc\w*|traduccion|translat\w+)\b"),
    sign("translation", 4.5, r"\b(?:como (?:se dice|se diria|digo|dirias)|how (?:do|would|can) \w+ say)\b"),
    sign(
        "summarization",
        4.0,
        r"\b(?:resum(?:e|en|ir|eme|elo|a|idos?)|summar\w+|tl;?dr|sintesis|sintetiza|"
        r"condense|key points|main (?:idea|points)|ideas? principal(?:es)?|gist|l[oa] (?:mas )?importante|"
        r"lo esencial)\b",
    ),
    sign(
        "translation",
        1.0,
        r"\b(?:en|al?|del?|in|into|to|from|the|version|espanol|spanish|english|ingles)\s+(?:the |el )?(?:ingles|"
        r"english|espanol|castellano|spanish|frances|french|aleman|german|italiano|italian|portugues|portuguese|"
        r"catalan|"
        r"euskera|chino|chinese|japones|japanese|ruso|russian|arabe|arabic|latin|coreano|korean|polaco|polish)\b"
        r"(?:[^\n]{0,20}[:\"]|\W*(?:please|por favor|for|para|of|version|is|seria|word)\b|\?\W*$)|"
        r"[:\"][^\n]{3,100}\b(?:in|into|en|al)\s+(?:ingles|english|espanol|castellano|spanish|french|frances|german|"
        r"aleman|italian\w?|portugu\w+|polish|polaco|catalan)\b",
    ),
    sign(
        "summarization",
        2.0,
        r"\b(?:recap|shorten\w*|acorta\w*|abrevia\w*|condens\w+|boil\b.{0,40}\bdown|takeaways|puntos clave|tldr|"
        r"abstract|synopsis|sinopsis|nutshell|pocas palabras|few words|sum\b.{0,30}\bup)\b",
    ),
    sign(
        "vision",
        1.5,
        r"\b(?:adjunt\w*|attached|sent you|te mando|escanead\w*|scanned)\b[^\n]{0,40}\b(?:radiografia|x-ray|dibujo|"
        r"drawing|grafic[oa]|chart|plano|diagrama?|factura|ticket|receipt|cuadro|painting)\b|"
        r"\b(?:radiografia|x-ray|dibujo|drawing|grafic[oa]|chart|cuadro|painting)\b[^\n]{0,40}\b(?:adjunt\w*|"
        r"attached|"
        r"te mando|i sent)\b",
    ),
    sign(
        "translation",
        4.0,
        rf"\b{_TONGUE} (?:word|term|equivalent|version|translation|name) (?:for|of)\b|\b(?:palabra|termino|"
        rf"equivalente|version|"
        rf"nombre|traduccion) (?:en )?{_TONGUE} (?:para|de|que|se)\b|\b(?:word|equivalent|term|palabra|"
        rf"equivalente) in {_TONGUE}\b|"
        rf"^[^\w\n]*(?:{_TONGUE}|en|es) ?[:\]][^\n]+[\n\[>]\W*(?:{_TONGUE}|en|es) ?[:\]]|"
        rf"\bhow do (?:the )?\w+s?h? say\b|\bcomo dicen (?:l[oa]s|en) \w+",
    ),
    sign(
        "translation",
        3.0,
        rf"\b(?:put|pon|pasa\w*|vierte|render|rewrite|reescrib\w+|version|equivalent\w*|say|dice|decir|diria|dime|"
        rf"mean\w*|significa\w*|quiere decir|localise|adapt\w*)\b.{{0,80}}\b(?:in|into|to|en|al?) "
        rf"(?:\w+ )?{_TONGUE}\b|\b(?:version|frase|sentence|phrase) {_TONGUE}\b",
    ),
    sign(
        "summarization",
        4.0,
        r"\b(?:headline|highlights?|titular|lo mas destacado|takeaways|key points|puntos (?:clave|principales|"
        r"mas importantes)|"
        r"overview|vision general|bullet points|minutes|acta)\b[^.\n]{0,40}\b(?:of|for|de|para|from|"
        r"del)\b[^.\n]{0,20}"
        r"\b(?:article|news|story|report|e-?mail|text|message|notes|meeting|post|noticia|articulo|informe|correo|"
        r"texto|mensaje|"
        r"notas|reunion|entrada)\b",
    ),
    # A text is given and its kind of answer named at the end or before a mark: Article: … Summary:
    sign(
        "summarization",
        4.5,
        r"^[^\w\n]*(?:tl;?dr|summary|resumen|in short|en resumen|abstract|highlights?)\W{0,3}\Z|\b(?:summary|resumen|"
        r"synopsis|sinopsis)\b[^.\n]{0,30}\b(?:of|for|de|para|del)\b",
    ),
    sign(
        "summarization",
        4.0,
        r"\b(?:main|central|key|principal(?:es)?|general|overall|ideas?|mensaje|argumentos?|tema|"
        r"puntos?)\b[^.\n]{0,20}"
        r"\b(?:points?|ideas?|arguments?|message|theme|puntos?|central|principal(?:es)?|general|clave|"
        r"argumento|mensaje|tema)s?\b[^?\n]{0,60}\b(?:paragraph|text|passage|article|speech|letter|email|below|"
        r"parrafo|texto|pasaje|articulo|discurso|carta|correo|abajo)\b|"
        r"\b(?:what (?:is|are) (?:this|these|the \w+)(?: \w+){0,2} about|de que (?:va|trata) (?:est[eao]|el|"
        r"la)\b[^?\n]{0,20})[^?.:\n]{0,16}[?.:]\s+\S.{25}",
    ),
    sign(
        "summarization",
        4.0,
        r"\b(?:shorten|cut|reduc\w+|acorta\w*|recorta\w*|deja\w*)\b.{0,30}\b(?:(?:in|to|en|a) (?:\d+|one|two|three|"
        r"una?|dos|tres|pocas|few) (?:words?|sentences?|lines?|"
        r"palabras|frases?|lineas?))\b",
    ),
    sign(
        "translation",
        4.5,
        rf"^[^\w\n]*(?:source|target|origen|destino|original|translation|traduccion)\b ?\(?(?:{_TONGUE}|en|"
        rf"es)?\)? ?:[^\n]*\n?"
        rf"[^\n]*\b(?:target|destino|translation|traduccion)\b",
    ),
    sign(
        "translation",
        3.0,
        rf"\b{_TONGUE} meaning of\b|\b(?:meaning|significado)\b.{{0,40}}\b(?:in|en) {_TONGUE}\b|"
        rf"^[^\w\n]*(?:what(?:'s| is)|how is|que es|como es|como (?:se )?(?:brinda|saluda|"
        rf"despid)\w*)\b.{{1,40}}\b(?:in|en) (?:{_TONGUE}|"
        rf"swedish|finnish|norwegian|danish|dutch|polish|turkish|greek|hindi|hungarian|czech|sueco|fines|noruego|"
        rf"danes|"
        rf"holandes|polaco|turco|griego|hungaro|checo)\b",
    ),
    sign(
        "summarization",
        2.5,
        r"\b(?:what (?:matters|is important)|lo que importa|que es (?:lo )?importante|lo esencial|(?:the )?essence|"
        r"short version|version corta|(?:article|news|text|noticia|articulo|texto) (?:briefly|brevemente))\b",
    ),
    # What is said, then where it is to go: … => Spanish, … | inglés.
    sign("translation", 4.5, rf"(?:[=-]>|→|\||\((?:in)?to|\(al?|\(en) ?{_TONGUE}\)?\W*\Z"),
    sign(
        "summarization", 4.5, r"^[^\w\n]*(?:destacad[oa]s|key points|puntos clave|takeaways|headline|titular)\W{0,3}\Z"
    ),
    sign(
        "summarization",
        3.0,
        r"\b(?:what|que) (?:does|is|do|dice|sostiene|defiende|cuenta|quiere decir) (?:this|the|est[aeo]|el|la)\b ?"
        r"(?:text|passage|article|author|paragraph|message|texto|pasaje|articulo|autora?|parrafo|mensaje)"
        r"(?: (?:say|saying|claim|arguing|argue|mean|about))?\W+\S.{25}",
    ),
    # A text that follows, in so many words or lines; what is wanted of it, in other words.
    sign(
        "summarization",
        3.0,
        r"\b(?:en|in|a|to|de|of) (?:un[ao]?|dos|tres|cuatro|cinco|pocas|one|two|three|four|five|a few|"
        r"\d+) (?:sol[oa]s? |"
        r"single |short )?(?:lineas?|renglon(?:es)?|frases?|oracion(?:es)?|palabras|vinetas|lines?|sentences?|words|"
        r"bullets?|tweets?|tuits?)\b[^\n:.]{0,40}[:.\n]\s*\S.{40}",
    ),
    sign(
        "summarization",
        2.0,
        r"\b(?:en corto|en breve|al grano|version (?:corta|breve)|l[oa] (?:gordo|basico|imprescindible|"
        r"indispensable)|"
        r"ideas? fuerza|entradilla|titular(?:es)?|headlines?|resumen\w*|rapidito|ficha de lectura|bottom line|"
        r"in brief|"
        r"the short of it|standfirst|recort\w+|trim|conclusiones|conclusions|sintetic\w+|synthesi[sz]e|"
        r"no (?:tengo|me da|hay) tiempo|don't have time|(?:no (?:quiero|voy a|pienso)|sin|para no|pa no) leer\w*|"
        r"solo lo que importa|only what matters|getting at|en que quedaron|did they agree)\b",
    ),
    sign("long_context", 2.0, r"^[ \t]*(?:question|pregunta)\s*:"),
)
PLAIN_WORDS = (
    sign(
        "coding",
        1.5,
        r"^[^\w\n]*(?:dad[oa]s?|given) (?:un[ao]?|dos|tres|el|la|los|las|an?|two|three|the) (?:\w+ ){0,3}?"
        r"(?:listas?|cadenas?|textos?|palabras?|frases?|matriz|arreglo|arbol|grafo|lists?|strings?|texts?|words?|"
        r"sentences?|grid|matrix|array|tree|graph)\b",
    ),
    sign(
        "coding",
        1.5,
        r"\b(?:apps?|bot|chatbot|macro|plugin|widget|(?:sitio|pagina) web|mi (?:web|pagina)|website|web ?page|"
        r"my site|"
        r"navegador|browser|servidor|backend|frontend|login|csv|excel|hoja de calculo|spreadsheet|scroll|arduino|"
        r"wordpress|"
        r"consola|command line|boton|button|carpetas?|folders?|automatiz\w+|automate\w*|automatically|"
        r"tests? unitarios|"
        r"unit tests?)\b",
    ),
    sign(
        "coding",
        1.5,
        r"\b(?:no (?:compila|me compila)|se (?:cuelga|cierra sol[ao]|congela)|pantalla (?:en )?blanc[ao]|crashes|"
        r"freezes|"
        r"blank screen|(?:won't|doesn't|does not) (?:compile|load)|en local|locally|pseudocodigo|pseudocode|"
        r"programacion|programming|librer?ia de|bucle|loop|variables?|punteros?|pointers?)\b",
    ),
    sign(
        "logic_reasoning",
        3.0,
        r"[\w)\"][.,;:!] ?\W{0,3}(?:que|quien|what|who) (?:es|sera|is it|is he|is she)\W*\Z|"
        r"\b(?:adivina(?:lo|me)?|guess|guess what i am)\W*\Z",
    ),
    sign(
        "logic_reasoning",
        2.5,
        r"[.,;] ?\W{0,3}(?:y )?(?:como (?:es|fue) posible|como puede ser|como (?:l[oa]s? )?(?:hizo|hicieron|logro|"
        r"supo)|"
        r"how (?:is (?:this|that|it) possible|can (?:this|that|it) be|come|did (?:he|she|they) (?:do it|know|"
        r"manage)))\W*\Z",
    ),
    sign(
        "logic_reasoning",
        2.0,
        r"\b(?:solo|only|just) (?:\w+ ){0,3}?(?:pesadas?|weighings?|viajes?|trips?|movimientos?|moves?)\b|"
        r"\b(?:solo un[oa]|only one|just one|uno de (?:los|ell[oa]s)|one of them) (?:\w+ ){0,4}?(?:verdad\w*|truth|"
        r"true|"
        r"miente|lies?|lying)\b|\b(?:jarras?|jugs?|garrafas?|buckets?)\b.{0,80}\b(?:exact\w+|medir|measure|mide)\b",
    ),
    sign(
        "logic_reasoning",
        2.0,
        r"\bes valid[oa] (?:el|la|est[ae]|ese) |\bes valid[oa]\W*\Z|\bis (?:it|this|the argument|that) valid\W*\Z|"
        r"\b(?:concluye|conclude)\W*\Z|\b(?:podemos (?:asegurar|afirmar)|can we be sure)\b|"
        r"\b(?:no pertenece|doesn't belong|does not fit|doesn't fit)\b",
    ),
    sign(
        "other",
        2.0,
        r"\b(?:mas|menos|more|less) (?:formal\w*|informal\w*|amable\w*|suave\w*|educad\w+|polite\w*|profesional\w*|"
        r"professional\w*|natural\w*|casual|friendly|robotic[oa]?|cordial\w*|kind(?:er|ly)?)\b|"
        r"\b(?:kinder|softer|nicer|politer)\b|\b(?:suene|sound) (?:mas|menos|more|less)\b|"
        r"\b(?:primera|segunda|tercera) persona\b|\b(?:first|second|third) person\b|"
        r"\b(?:en|a|in|into|to) (?:past|present|future|pasado|presente|futuro|plural|passive|pasiva)\b",
    ),
    sign(
        "other",
        1.5,
        r"\b(?:tildes|acentos|comas|puntuacion|punctuation|commas|apostrophes|capitali[sz]e|ortografi\w+|typos|"
        r"repeticiones|repetition)\b|\b(?:esta bien (?:escrit|dich)[oa]|bien redactad[oa])\b|\bcorrect english\b",
    ),
    sign(
        "other",
        2.0,
        r"^[^\w\n]*(?:un[ao]? |an? |el |la |the )?(?:\w+ )?(?:carta|correo|mensaje|e-?mail|message|letter|reply|"
        r"respuesta|"
        r"discurso|speech|invitacion|invitation|anuncio|advert) (?:\w+ ){0,2}?(?:para|to|for|de|of)\b",
    ),
    sign(
        "other",
        1.5,
        r"^[^\w\n]*(?:un[ao]? |an? )?(?:recetas?|rutina|itinerario|dieta|lista de la compra|ejercicios|juegos|trucos|"
        r"ruta|"
        r"recipes?|routine|itinerary|diet|shopping list|exercises|games|tricks|tips|route)\b|"
        r"\b(?:que (?:le regalo|me pongo|cocino|hago de (?:cenar|comer)|hago)|what (?:do|should|can|shall) i (?:do|"
        r"make|"
        r"wear|cook|give|say|write|pick|buy))\b",
    ),
    sign(
        "creative_writing",
        2.0,
        r"^[^\w\n]*(?:\w+ ){0,2}?(?:cuento|poema|haikus?|microrrelato|relato|corrido|villancico|nana|lullaby|soneto|"
        r"copla|"
        r"monologo|monologue|sketch|brindis|trabalenguas|tongue twister|fabula|fable|bedtime story|flash fiction|"
        r"carol|"
        r"sonnet|letra de|lyrics)\b",
    ),
    sign(
        "creative_writing",
        1.5,
        r"\b(?:(?:escrib|arm|hac|invent|cont|cant)(?:i|a|e)(?:me|te)|haz(?:me|le)?|tell me|cuentame|"
        r"contame)\b[^.?!\n]{0,30}"
        r"\b(?:cuento|poema|historia|cancion|verso|nana|rima|story|tale|poem|song|rhyme)\b|\b(?:rimad[oa]|rhyming|"
        r"rima con|"
        r"rhymes? with|que rime)\b",
    ),
    sign(
        "coding",
        1.0,
        r"^[^\w\n]*(?:(?:quiero|necesito|queria|quisiera|hay que hacer|haz) )?que (?:cuando|si|cada vez|"
        r"se \w+ (?:sol[oa]|"
        r"automatic\w+))\b|\b(?:every time|whenever) (?:i|someone|a user|the \w+|an?) \w+.{0,60}\b(?:itself|"
        r"automatic\w+)\b",
    ),
    sign("logic_reasoning", 2.0, r"\b(?:mejor explica|explica mejor|best explains|mas debilita|most weakens)\b"),
)
