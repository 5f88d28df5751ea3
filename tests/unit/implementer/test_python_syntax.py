"""Python is read in one thread at a time."""

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.implementer.python_syntax import parse


def test_parse__many_threads_at_once_read_nested_code() -> None:
    nested = "x = " + "[" * 40 + "]" * 40 + "\n"
    expected = ast.dump(ast.parse(nested))

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(parse, [nested] * 400))

    assert {ast.dump(tree) for tree in found} == {expected}


@pytest.mark.parametrize("text", ["def (:", "x = \0", "(" * 100_000])
def test_parse__refuses_what_is_not_python(text: str) -> None:
    with pytest.raises((SyntaxError, ValueError, RecursionError, MemoryError)):
        parse(text)
