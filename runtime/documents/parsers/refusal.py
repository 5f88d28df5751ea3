"""Why a document is not read, and how much of one is."""

TOO_MUCH_MEMORY = "needs more memory to be read than a document may use"


class Refusal(Exception):
    """Its text completes a sentence that begins with the document's name."""

    def __init__(self, why: str, *, is_too_large: bool = False) -> None:
        super().__init__(why, is_too_large)
        self.why = why
        self.is_too_large = is_too_large


class Budget:
    """What a document may come to."""

    def __init__(self, *, characters_max: int, pages_max: int) -> None:
        self.pages_max = pages_max
        self._characters_max = characters_max
        self._left = characters_max

    def spend(self, text: str) -> str:
        """The text itself. Raises Refusal when all texts together are too long."""
        self._left -= len(text)
        if self._left < 0:
            raise Refusal(f"holds more than {self._characters_max:,} characters of text", is_too_large=True)
        return text
