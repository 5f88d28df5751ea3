# ruff: noqa: RUF001 - Cyrillic letters are meant.
"""Answers that leave a topic to us, told from others without asking a model."""

import re

_PHRASES = (
    # English
    r"skip( (it|this|that))?", r"you (can )?(decide|choose|pick)", r"(it'?s )?up to you", r"your (choice|call)",
    r"(i )?don'?t (care|know|mind)", r"no (idea|preference|opinion)", r"whatever( you (like|want|think))?", r"anything",
    # Polish
    r"pomi[nń]", r"pomijam", r"(ty )?zdecyduj( sam[aoi]?)?", r"(ty )?(sam )?wybierz( sam[aoi]?)?",
    r"jak (chcesz|uwa[zż]asz)",
    r"oboj[eę]tn(ie|e)", r"wszystko jedno", r"nie wiem", r"nie mam zdania", r"dowolnie",
    # Russian
    r"пропусти(ть|те)?", r"(ты )?реш(и|ай)(те)? сам(и|а)?", r"(вы )?решайте( сами)?", r"на (ваше|тво[её]) усмотрение",
    r"(мне )?вс[её] равно", r"не знаю", r"не важно", r"неважно", r"как хо(чешь|тите)", r"выбери(те)? сам(и|а)?",
    # German
    r"[uü]berspringen", r"(du|sie) entscheide(st|n)", r"entscheide(n sie)?( du)?( selbst)?",
    r"(ist )?(mir )?egal", r"(ich )?wei(ß|ss) (ich )?nicht", r"keine (ahnung|vorliebe|meinung)",
    r"wie (du|sie) (willst|wollen|meinst|meinen)",
)  # fmt: skip
_UNDECIDED = re.compile(rf"\W*({'|'.join(_PHRASES)})(,? (please|prosz[eę]|пожалуйста|bitte))?\W*", re.IGNORECASE)


def is_undecided(answer: str) -> bool:
    """Whether a whole answer says no more than "skip" or "you decide", in English, Polish, Russian or German.

    Longer answers, and other languages, are for the model to judge.
    """
    return _UNDECIDED.fullmatch(answer.replace("’", "'")) is not None
