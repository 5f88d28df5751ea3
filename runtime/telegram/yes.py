"""A yes that was written instead of pressed. It agrees to a price, so it is nothing but a yes."""

import re

_YES = re.compile(
    r"\W*(yes|yes please|ok|okay|go|go ahead|agreed|build it|do it|"
    r"tak|dobrze|zgoda|zgadzam się|buduj|zaczynaj|"
    r"да|хорошо|согласен|согласна|давай|строй|начинай)\W*",
    re.IGNORECASE,
)


def is_yes(text: str) -> bool:
    """Whether the whole text says yes, in English, Polish or Russian."""
    return _YES.fullmatch(text) is not None
