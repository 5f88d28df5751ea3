"""Which paths a project may hold."""


def is_forbidden_part(part: str) -> bool:
    """Nothing, here, up, or what some file system takes for `.git`."""
    return part in ("", ".", "..") or part.casefold().rstrip(". ") in (".git", "git~1")
