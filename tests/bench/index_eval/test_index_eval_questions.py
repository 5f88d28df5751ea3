"""What is asked, and that its words are really gone from the code."""

from textwrap import dedent

import pytest

from tests.bench.index_eval.questions import Corpus, make_corpus, sentence_of

PYTHON = '''
class Pool:
    """Stays, as it is a class's."""

    @cached
    def take(self, timeout_s):
        """Hand out a free connection or wait.

        Everything below goes as well: timeout words.
        """
        return self._free.get(timeout_s)

    def close(self):
        """Close every connection that is idle."""
'''
JAVASCRIPT = """
/**
 * Parses a date from {@link Text}. Later sentences are not asked.
 * @param {string} text - what is read
 */
exports.parse = function (text) { return text }

/** Adds two numbers to one sum. */
const add = (a, b) => a + b

class Clock {
  /**
   * Tells the present time of day
   */
  // a remark that stays
  now() { return 1 }
}
"""
TYPESCRIPT = """
export class Store {
  /** Declared only, and so never asked for. */
  get(key: string): string
  /** Reads one value by its key. */
  @logged()
  get(key: string | symbol): string { return "" }
}

/** Counts the words of a text. */
export const count = (text: string): number => 3
"""
GO = """
package main

// Serve answers requests until the context ends.
// It never returns nil.
func Serve(ctx context.Context) error {
	return nil
}
"""
RUST = """
impl Reader {
    /// Reads the next record of the file.
    ///
    /// # Panics
    #[inline]
    pub fn next(&mut self) -> Record { self.record() }
}
"""


def corpus(path: str, source: str) -> Corpus:
    return make_corpus("pack", {path: source.encode()})


@pytest.mark.parametrize(
    ("path", "source", "asked", "gone", "stays"),
    [
        (
            "pool.py", PYTHON,
            {
                "Hand out a free connection or wait": "def take(self, timeout_s):",
                "Close every connection that is idle": "def close(self):",
            },
            ["free connection", "timeout words"], ["Stays, as", "@cached"],
        ),
        (
            "clock.js", JAVASCRIPT,
            {
                "Parses a date from Text": "exports.parse = function (text) { return text }",
                "Adds two numbers to one sum": "const add = (a, b) => a + b",
                "Tells the present time of day": "now() { return 1 }",
            },
            ["Parses", "@param", "sentences", "/**", "*/"], ["a remark that stays"],
        ),
        (
            "store.ts", TYPESCRIPT,
            {
                "Reads one value by its key": "get(key: string | symbol): string { return \"\" }",
                "Counts the words of a text": "export const count = (text: string): number => 3",
            },
            ["Declared only", "/**"], ["@logged()", "get(key: string): string\n"],
        ),
        (
            "serve.go", GO,
            {"answers requests until the context ends": "func Serve(ctx context.Context) error {"},
            ["//", "never"], ["package main"],
        ),
        (
            "reader.rs", RUST,
            {"Reads the next record of the file": "pub fn next(&mut self) -> Record { self.record() }"},
            ["///", "Panics"], ["#[inline]"],
        ),
    ],
)  # fmt: skip
def test_questions__are_first_sentences_of_code_without_them(
    path: str, source: str, asked: dict[str, str], gone: list[str], stays: list[str]
) -> None:
    if path.endswith(".rs"):
        pytest.importorskip("tree_sitter_rust")
    found = corpus(path, source)
    text = found.files[f"pack/{path}"].decode()

    assert {it.text: it.definition.strip() for it in found.questions} == asked
    assert not [words for words in gone if words in text]
    assert not [words for words in stays if words not in text]
    for question in found.questions:
        assert text.split("\n")[question.first_line - 1] == question.definition
        assert question.first_line <= question.last_line <= len(text.split("\n"))


def test_questions__leave_python_that_can_be_read() -> None:
    source = 'def one():\n    "Says what it does here"\n\ndef two(): "Says what two does here"\n'
    text = corpus("a.py", source).files["pack/a.py"].decode()
    assert text == "def one():\n    ...\n\ndef two(): ...\n"
    compile(text, "a.py", "exec")


def test_questions__are_unique_and_of_no_test_and_stand_nowhere_in_the_code() -> None:
    source = """
        def one():
            '''Say the same thing twice.'''
            return 1

        def two():
            '''Say the same thing twice.'''
            return 2

        def three():
            '''Say what a remark repeats.'''
            return 3  # Say what a remark repeats

        def four():
            '''Say a thing of its own.'''
            return 4
    """
    content = dedent(source).encode()
    assert [it.text for it in make_corpus("pack", {"a.py": content}).questions] == ["Say a thing of its own"]
    assert not make_corpus("pack", {"tests/test_a.py": content}).questions


def test_questions__of_too_many_the_same_few_are_chosen() -> None:
    def source(numbers: range) -> bytes:
        return "".join(f'def f{it}():\n    "Give the number {it} back now"\n' for it in numbers).encode()

    few = make_corpus("pack", {"a.py": source(range(50))}, questions_max=5).questions
    again = make_corpus("pack", {"a.py": source(range(49, -1, -1))}, questions_max=5).questions
    assert [it.text for it in few] == [it.text for it in again]
    assert len(few) == 5


@pytest.mark.parametrize(
    ("documentation", "sentence"),
    [
        ("Return the\n  first item, e.g. a word. More.", "Return the first item, e.g. a word"),
        ("Serve gives an answer to all.", "gives an answer to all"),
        ("`Serve(a, b)` - gives an answer to all", "gives an answer to all"),
        ("Reads [the docs](https://example.org/a) of :class:`~a.Page` now", "Reads the docs of a.Page now"),
        ("@param text what is read here", ""),
        ("See the other function for this", ""),
        ("Deprecated in favour of something else", ""),
        ("eslint-disable-next-line no-unused-vars for us", ""),
        ("Too few words", ""),
        ("\u8fd4\u56de\u4e00\u4e2a\u503c this is not English text", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_sentence__is_the_first_that_says_something(documentation: str, sentence: str) -> None:
    assert sentence_of(documentation, "Serve") == sentence
