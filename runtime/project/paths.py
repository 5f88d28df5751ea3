"""Which paths a project may hold."""


def is_plain_path(path: str) -> bool:
    """Relative, inside the project and written in one way only, as `src/app.py`."""
    return "\\" not in path and "\0" not in path and not any(map(is_forbidden_part, path.split("/")))


def is_forbidden_part(part: str) -> bool:
    """Nothing, here, up, or what some file system takes for `.git`."""
    return part in ("", ".", "..") or part.casefold().rstrip(". ") in (".git", "git~1")
