"""Words that say what kind of thing is asked, in groups that both languages share; a fitted head weighs the groups.

Words are folded (`fold`); `resum*` stands for every word that begins so. What a word is near to is left to the
sentence vector: here stand verbs of asking, kinds of text, and things that some domains speak of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GROUPS: dict[str, str] = {
    "shorten": (
        "resum* summar* sintesis sintet* synthes* condens* abrev* acort* recort* reduc* shorten* trim* compact* "
        "compres* abstract tldr recap* gist sinopsis synopsis titular* headline* entradilla standfirst takeaway* "
        "highlights destacad* minuta esencial* essenc* nutshell grano tocho larguisim* brevisim* destila* distil* "
        "moraleja acuerdos acordad* agreed settled paja waffle telegram* ficha"
    ),
    "so long": (
        "palabra* word words linea* line lines renglon* frase* sentence* oracion* vineta* bullet* tuit* tweet* "
        "corto corta short shorter breve* brief* largo larga long parrafo* paragraph*"
    ),
    "translate": "traduc* translat* interpret* subtit* subtitle* doblaje dubbing",
    "tongue": (
        "ingles* english espanol* spanish castellano frances* french aleman* german italian* portugues* portuguese "
        "japones* japanese chino chinese ruso russian arabe arabic latin coreano korean catalan* euskera basque "
        "gallego galician quechua guarani idioma* language* lengua*"
    ),
    "rewrite": (
        "reescrib* rewrit* reformul* rephras* parafras* paraphras* corrig* correg* correct* mejora* improv* redact* "
        "proofread* reword* ortograf* gramat* grammar spelling punctuat* puntua* tildes acentos comas commas tono "
        "tone formal* informal* polite* amable* educad* suave* softer kinder suene suena sound* faltas typos rude "
        "grosero version* wording tercera persona third person"
    ),
    "extract": (
        "extrae* extract* saca* clasific* classif* etiquet* label* categor* ordena* sort* numera* separa* agrupa* "
        "pull list lista identifica* identify"
    ),
    "write": (
        "escrib* write writes writing compon* compose* redact* draft* narra* narrate* inventa* invent invents "
        "imagina* imagine* continua* continue* desarrolla*"
    ),
    "make": (
        "haz hazme hace haceme hacer make build crea create crear arma armame armar genera* generat* implement* "
        "programa* develop* disena* design* monta* prepara* prepare*"
    ),
    "tell": "di dime decime decir tell dame deme give indica* muestra* show* cuenta cuentame contame",
    "compute": (
        "calcul* comput* halla* determin* resuelv* resolver solve* simplif* deriva* integra* demuestra* prove* "
        "factor* despeja* redondea* round"
    ),
    "explain": "explic* explain* describ* significa* mean means meaning diferencia* difference* funciona* works",
    "mend": (
        "arregl* fix* repar* debug* soluciona* solve* falla* fail* error* crash* bug* excepcion* exception* cuelga* "
        "roto broken"
    ),
    "tale": (
        "poema* poem* cuento* story stories tale* relato* microrrelato* novela* novel cancion* song* lyrics verso* "
        "verse* rima* rhym* haiku* soneto* sonnet* fabula* fable* guion screenplay monolog* dialog* personaje* "
        "character* escena scene* leyenda* legend* balada* copla* nana lullaby trabalenguas chiste* joke* brindis "
        "toast"
    ),
    "letter": (
        "correo* email* mail carta* letter* mensaje* message* nota note discurso speech cv curriculum resena* "
        "review* anuncio* advert* post tarjeta* card invitacion* invitation* whatsapp respuesta* reply bio eslogan "
        "slogan lema caption pie letrero"
    ),
    "text": (
        "texto* text parrafo* paragraph* articulo* article* noticia* news pasaje passage informe* report* "
        "documento* document* capitulo* chapter* conversacion* conversation* reunion* meeting* acta* ensayo essay "
        "charla chat"
    ),
    "program": (
        "codigo code funcion* function* script* program* programa* algoritm* algorithm* clase* class classes "
        "metodo* method* variable* bucle* loop* compil* recursi* puntero* pointer* libreria* library comando* "
        "command* api* repositorio* repo git branch* rama* commit* merge* test tests prueba* unitari*"
    ),
    "structure": (
        "lista* list lists array* arreglo* string* cadena* entero* integer* matriz matrix diccionario* dictionar* "
        "tupla* tuple* arbol* tree* grafo* graph* pila stack cola queue nodo* node* elemento* element* posicion* "
        "index*"
    ),
    "screen": (
        "boton* button* pagina* page web sitio site website app apps formulario* form menu pantalla* screen "
        "navegador* browser* servidor* server* login usuario* user users clic click* scroll contrasena* password* "
        "juego* game* celular movil phone computadora computer video videos extension extensions redes online "
        "aplicacion*"
    ),
    "file": (
        "archivo* file files fichero* carpeta* folder* csv excel hoja* planilla* spreadsheet* pdf* txt json xml "
        "backup* disco disk consola console terminal"
    ),
    "in and out": (
        "entrada* input* salida* output* devuelv* devolv* return* retorn* imprim* print* recorre* guarda* save "
        "saves lee read reads valida* validate* comprueba* check* ejemplo* example*"
    ),
    "by itself": (
        "automat* bot macro* sensor* led leds arduino alerta* avise avisa* notif* recordatorio* reminder* robot "
        "robots webcam camara programad* scheduled"
    ),
    "table": (
        "tabla* table tables columna* column* fila filas row rows registro* record records consulta* query queries "
        "base bases database* esquema* schema* indice* join* select where sql id"
    ),
    "trade": (
        "cliente* customer* pedido* order orders empleado* employee* venta ventas sale sales producto* product "
        "products factura* invoice* sucursal* branch* departamento* department* proveedor* supplier* vendedor* "
        "alumno* student*"
    ),
    "number": (
        "numero* number* ecuacion* equation* triangul* triangle* radio radius area* perimetr* perimeter angulo* "
        "angle* suma* sum porcentaje* percent* promedio* average* media mean fraccion* fraction* probabil* raiz "
        "root primo* prime* divis* multipl* derivad* integral* limite* polinom* polynom* vector* circul* "
        "circunferencia doble twice triple mitad half tercio third"
    ),
    "measure": (
        "euro* peso pesos dolar* dollar* kg kilo* metro* metre* meter* cm km litro* litre* liter* hora horas hour "
        "hours minuto* minute* precio* price* cuesta* cost costs paga* pay pays gast* spend* spent descuento* "
        "discount* ahorr* vende* sell sells sold compra* buy buys bought reparte* share cobra* charge*"
    ),
    "how many": "cuanto cuanta cuantos cuantas many much",
    "reason": (
        "premisa* premise* conclus* conclu* deduc* miente* mienten liar lie lies lying verdad* truth* argument* "
        "razon* reason* hipotesis hypothesis logic* acertij* riddle* adivin* guess* puzzle* valido valid supuesto "
        "assum* contradic* posible possible trampa trick piensalo flaw* falacia* fallac* enunciado* statement* "
        "debilita* weaken* refuerza* strengthen* propos* opposite"
    ),
    "kin": (
        "padre* father* madre* mother* hermano* hermana* brother* sister* hijo* hija* son sons daughter* tio tia "
        "uncle aunt primo prima cousin* abuel* grand* nieto* nieta* suegr*"
    ),
    "day": (
        "ayer yesterday hoy today manana tomorrow lunes martes miercoles jueves viernes sabado domingo monday "
        "tuesday wednesday thursday friday saturday sunday"
    ),
    "feel": (
        "triste* sad feliz happy aburrid* bored boring cansad* tired amor love odio hate gusta* like encanta* miedo "
        "afraid scared nervios* nervous solo lonely jaja* haha* lol sueno"
    ),
    "greet": "hola hi hello hey gracias thanks adios bye buenas saludos perdon sorry felicidades congrat* suerte luck",
    "advise": (
        "recomiend* recommend* consej* advice debo deberia should mejor best conviene worth tips ideas idea receta* "
        "recipe* plan planes regal* gift* viaj* trip* ruta* dieta* diet* rutina* routine* ejercicio* exercise* menu "
        "opciones cena dinner"
    ),
    "who": (
        "quien quienes who whom whose cuando when donde where autor* author* invento invented descubr* discover* "
        "capital* fundo founded nacio born murio died gano won"
    ),
    "world": (
        "pais* country countries presidente* president* rey king reina queen guerra* war wars batalla* battle* "
        "siglo* century ano anos year years rio river ciudad* city cities poblacion population pelicula* film* "
        "movie* libro book mundo world planeta* planet* animal* historia history isla* island* equipo team"
    ),
    "picture": (
        "foto* photo* imagen* image* captura* screenshot* picture* dibujo* drawing* grafic* chart* escane* scan* ve "
        "aparece"
    ),
    "at hand": (
        "completo* complete* entero entera whole entire paginas pages abajo below siguiente* following pego pegado "
        "paste* adjunt* attach* arriba above anexo* mando sending"
    ),
}
FIRST_WORDS, LAST_WORDS = 16, 10
"""An instruction stands at the beginning or at the end of what it is about."""
STEM_CHARS = range(3, 11)

_WORD = re.compile(r"[a-z]+")
# Words that stand in one of the two languages only.
_SPANISH_WORDS = "el la los las que de un una con por para es y se lo del al como mi su esta este muy"
_ENGLISH_WORDS = "the of and to is you it for with on are was this that my your not we they at be"
_SPANISH, _ENGLISH = frozenset(_SPANISH_WORDS.split()), frozenset(_ENGLISH_WORDS.split())


def _index() -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Whole words, and beginnings of words, to the groups that they stand in."""
    whole: dict[str, tuple[int, ...]] = {}
    stems: dict[str, tuple[int, ...]] = {}
    for at, words in enumerate(GROUPS.values()):
        for word in words.split():
            into, key = (stems, word[:-1]) if word.endswith("*") else (whole, word)
            into[key] = (*into.get(key, ()), at)
    return whole, stems


_WHOLE, _STEMS = _index()


def words_of(scan: str) -> list[str]:
    """The words of a folded text."""
    return _WORD.findall(scan)


def groups_in(words: Sequence[str]) -> tuple[float, ...]:
    """For each group whether folded words name it where instructions stand, 1 or 0, in the order of `GROUPS`."""
    if len(words) > FIRST_WORDS + LAST_WORDS:
        words = (*words[:FIRST_WORDS], *words[-LAST_WORDS:])
    found = [0.0] * len(GROUPS)
    for word in words:
        for at in _WHOLE.get(word, ()):
            found[at] = 1.0
        for end in STEM_CHARS:
            for at in _STEMS.get(word[:end], ()):
                found[at] = 1.0
            if end >= len(word):
                break
    return tuple(found)


def both_tongues(words: Iterable[str]) -> float:
    """How much of folded words is in one language and how much in the other, the lesser of the two, in [0, 1]."""
    spanish = english = 0
    for word in words:
        spanish += word in _SPANISH
        english += word in _ENGLISH
    return min(spanish, english, 3) / 3
