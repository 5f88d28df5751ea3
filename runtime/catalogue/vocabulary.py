"""The words that tell how hard a question is and what it is about, in Polish and English.

Each entry is a pattern of whole words: `shower` is not `show`. Polish words stand as a stem with the endings they
take, English ones take a plural `s`. Source: spec/assistant.md §3.2 and §3.3.
"""

import re
from collections.abc import Mapping
from typing import Literal

Intent = Literal[
    "code", "math", "search", "document", "memory", "temporal", "analytical", "conversational", "factual", "creative"
]


class Vocabulary:
    """`count` is the number of entries that occur, not of their occurrences."""

    def __init__(self, *entries: str) -> None:
        self._entries = [re.compile(rf"(?<!\w)(?:{entry})(?!\w)", re.IGNORECASE) for entry in entries]

    def count(self, text: str) -> int:
        return sum(1 for entry in self._entries if entry.search(text))


_PROGRAM = (
    r"(?:code|program\w*|function|package|module|compiler|struct|interface|channel|goroutine|routine|library|kod\w*)"
)
_POLISH = r"(?:jest|jaka|jaki|jakie|jaką|dzisiejsz\w+|urodzenia|podaj|która|mi|się|czy)"

_ANALYTICAL = (
    r"przeanaliz\w+|analizuj\w*",
    r"porówn\w+",
    r"zaprojekt\w+",
    r"zoptymaliz\w+",
    r"debuguj\w*|debugowa\w+",
    r"z?refaktoryz\w+",
    r"architektur\w*",
    r"algorytm\w*",
    r"złożonoś\w+",
    r"zaimplement\w+",
    r"strategi(?:a|i|ę|ą|e|o|om|ami|ach)",
    r"oceń(?:cie|my)?|oceni\w+",
    r"zapropon\w+ rozwiąza\w+",
    r"rozwią[zż]\w* problem\w*",
    r"analy[zs]es?",
    r"compares?",
    r"designs?",
    r"optimi[zs]es?",
    r"debugs?",
    r"refactors?",
    r"architectures?",
    r"algorithms?",
    r"complexity|complexities",
    r"implements?",
    r"strategy|strategies",
    r"evaluates?",
    r"proposes? (?:an? |the )?solutions?",
    r"solves? (?:an? |the |this )?problems?",
)
ANALYTICAL = Vocabulary(*_ANALYTICAL)
HARD = Vocabulary(
    *_ANALYTICAL,
    r"wyjaśni\w* szczegółowo|szczegółowo wyjaśni\w*|wyjaśnij szczegółowo",
    r"wieloetapow\w+",
    r"krok po kroku",
    r"explains? in detail",
    r"multi-?step",
    r"step[ -]by[ -]step",
)
MEDIUM = Vocabulary(
    r"jak",
    r"dlaczego",
    r"co to jest",
    r"różnic\w*",
    r"przykład\w*",
    r"poka(?:ż|z)\w*",
    r"napisz\w*|napisać|napisał\w*",
    r"stwórz\w*|stworz\w+",
    r"opisz\w*|opisać|opisuj\w*",
    r"wymień\w*|wymieni\w+",
    r"podaj\w*|podać",
    r"wytłumacz\w*",
    r"pomóż\w*|pomóc|pomoże\w*|pomoc\w*",
    r"how",
    r"why",
    r"what is|what's",
    r"differences?",
    r"examples?",
    r"shows?",
    r"writes?",
    r"creates?",
    r"describes?",
    r"lists?",
    r"gives? me",
    r"explains?",
    r"helps?",
)

INTENTS: Mapping[Intent, Vocabulary] = {
    "code": Vocabulary(
        r"kod(?:u|em|zie|y|ów|om|ami|ach|owi|uj\w*|owa\w+)?|codes?",
        r"python\w{0,3}|javascript|java|rust|sql|html|css",
        r"c\+\+",
        rf"golang|go {_PROGRAM}s?|(?:{_PROGRAM}|written|language|języku?) (?:in |w )?go",
        r"funkcj\w+|functions?",
        r"class(?:es)?",
        r"metod(?:a|y|ę|ą|zie|o|om|ami|ach)?|methods?",
        r"apis?|endpoints?",
        r"bugs?|błąd|błęd\w+|errors?|exceptions?",
        r"debug(?:s|uj\w*|owa\w+)?",
        r"tests?|testy|testów|testuj\w*",
        r"deploys?",
        r"git|github",
        r"dockera?|kubernetes\w?",
        r"ci/cd",
    ),
    "math": Vocabulary(
        r"oblicz\w*|policz\w*|calculates?|computes?",
        r"ile|how much|how many",
        r"procent\w*|percents?",
        r"sum(?:a|y|ę|ą|ie|o|om|ami|ach|uj\w*|s)?",
        r"średni(?:a|ej|ą|ę|e|ch|o)|averages?",
        r"median(?:a|y|ę|ą|ie|s)?",
        r"równa(?:nie|nia|niu|niem|ń|niom|niami|niach)|equations?",
        r"wzór|wzor(?:u|y|em|ze|owi|ów|om|ami|ach)|formulas?|formulae",
        r"integrals?|całk(?:a|i|ę|ą|ę|ce|ami|ach)",
        r"pochodn\w+|derivatives?",
    ),
    "search": Vocabulary(
        r"znajd\w+|znale[zź]\w+|finds?",
        r"szukaj\w*|szuka\w*|search(?:es)?",
        r"wyszuk\w+|looks? up",
        r"aktualn\w+|current",
        r"najnowsz\w+|latest|recent",
        r"dzisiaj|dziś|today",
        r"cen(?:a|y|ę|ą|ie|o|om|ami|ach)?|prices?",
        r"pogod(?:a|y|ę|ą|zie|o)|weather",
        r"kurs(?:u|y|em|ie|owi|ów|om|ami|ach)?|rates?",
        r"wiadomoś\w+|news",
        r"stron(?:a|y|ę|ą|ie|o|om|ami|ach)?|websites?",
        r"link(?:i|u|iem|ów|om|ami|ach|s)?|urls?",
        r"artykuł\w*|articles?",
    ),
    "document": Vocabulary(
        r"dokument(?:u|y|em|cie|owi|ów|om|ami|ach)?|documents?",
        r"plik(?:u|i|iem|owi|ów|om|ami|ach)?|files?",
        r"pdfs?|docx",
        r"notat\w+|notes?",
        r"przesłan\w+|uploaded",
        r"treś(?:ć|ci|cią|ciach|ciami|ciom)|contents?",
        r"fragment(?:u|y|em|cie|ów|om|ami|ach|s)?|excerpts?",
        r"cytat\w*|cytuj\w*|zacytuj\w*|quotes?",
    ),
    "memory": Vocabulary(
        r"zapamięt\w+|remembers?",
        r"pamięta\w+",
        r"moje imię|mojego imienia|my name",
        r"preferencj\w+|preferences?",
        r"ulubion\w+|favou?rites?",
        r"(?:set|change|update)s? my",
    ),
    "temporal": Vocabulary(
        r"czas(?:u|ie|em|owi|y|ów|om|ami|ach)?|times?",
        r"dat(?:y|ę|ą|cie|om|ami|ach)|dates?",
        rf"data (?:\w+ )?{_POLISH}|{_POLISH} (?:\w+ )?data(?=\W*\Z|[?.!,;])",
        r"godzin\w*|hours?",
        r"dzisiaj|dziś|today",
        r"teraz|now",
        r"kiedy|when",
        r"(?:which|what) (?:year|day)|(?:jaki|który)(?: jest| mamy)? (?:dziś |dzisiaj |teraz )?(?:rok|dzień)",
    ),
    "conversational": Vocabulary(
        r"\A\W*(?:cześć|hej|witaj\w*|witam|siema|dzień dobry|dobry wieczór|dobranoc|do widzenia|dzięki|dziękuję"
        r"|tak|nie|hi|hello|hey|good (?:morning|afternoon|evening|night)|greetings|bye|goodbye|thanks|thank you"
        r"|yes|no|yeah|yep|nope|ok|okay)",
        r"how are you|jak się masz|co słychać",
    ),
    "creative": Vocabulary(
        r"story|stories|poems?|poetry|brainstorms?|brainstorming|songs?|lyrics|tales?|fiction|haikus?|limericks?",
        r"opowiad\w+|wiersz\w*|bajk\w+|bajek|piosen\w+|historyj\w+|burz\w+ mózgów",
    ),
}
