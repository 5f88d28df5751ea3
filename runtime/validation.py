"""What pydantic found wrong with data from outside, in words that never quote it."""

from pydantic import ValidationError


def problems(error: ValidationError) -> list[tuple[str, str]]:
    """Pairs of the place, dotted and empty for the whole, and what is wrong there. Never empty."""
    return [
        (".".join(map(str, problem["loc"])), problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
