"""Python read as a tree, in one thread at a time."""

import ast
import threading

_parsing = threading.Lock()


def parse(text: str) -> ast.Module:
    """`ast.parse`, with its errors: SyntaxError, ValueError, RecursionError.

    In CPython 3.11 threads that build trees at once share a counter of their depth, and one of them ends with
    `SystemError: AST constructor recursion depth mismatch` (python/cpython#106905).
    """
    with _parsing:
        return ast.parse(text)
