"""One small source of each language: what its definitions are, where, what documents them and what they call."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.index import definition
from runtime.index.chunk import Chunk, chunk_file
from runtime.index.definition import Definition, structure_of
from runtime.index.language import SYNTAXES, Syntax, language_of
from runtime.index.nesting import arrows_of, nesting_of


@dataclass(frozen=True, slots=True)
class Found:
    first: int
    last: int
    docstring: str = ""
    calls: tuple[str, ...] = ()


SOURCES: dict[str, tuple[str, dict[str, Found]]] = {
    "query.js": (
        """var Query = module.exports = function (model) {
  this.model = model;
};

/**
 * Finds documents.
 * @api public
 */
Query.prototype.find = function (conditions) {
  return this.exec(conditions);
};

exports.merge = function merge(a, b) {
  return copy(a, b);
};
module.exports = function (schema) {
  return new Query(schema);
};
module.exports.later = async (query) => query.find();
this.Model = class {
  save() { return write(); }
};
handlers["x"] = function () {
  return 1;
};
make().y = function () {
  return 2;
};
Query.count = 5;
""",
        {
            "": Found(1, 29, "", ("make",)),
            "Query.find": Found(5, 11, "Finds documents.", ("exec",)),
            "merge": Found(13, 15, "", ("copy",)),
            "exports": Found(16, 18, "", ("Query",)),
            "later": Found(19, 19, "", ("find",)),
            "Model": Found(20, 22, "", ("write",)),
        },
    ),
    "Cart.java": (
        """package shop;

/**
 * Holds what is bought.
 *
 * @since 1
 */
@Entity
public class Cart<T extends Item> extends Base {
    private final List<T> items = new ArrayList<>();

    public Cart(Clock clock) {
        super(clock);
        load(clock);
    }

    /** The sum of all prices. */
    @Override
    public int total() {
        return items.stream().mapToInt(Item::price).sum();
    }

    interface Visitor {
        default void visit(Cart<?> cart) {
            cart.total();
        }

        void leave();
    }

    enum State {
        OPEN;

        State next() {
            return State.valueOf("OPEN");
        }
    }
}
""",
        {
            "": Found(1, 1),
            "Cart": Found(3, 38, "Holds what is bought.", ("ArrayList",)),
            "Cart.Cart": Found(12, 15, "", ("load",)),
            "Cart.total": Found(17, 21, "The sum of all prices.", ("stream", "mapToInt", "sum")),
            "Cart.Visitor": Found(23, 29),
            "Cart.Visitor.visit": Found(24, 26, "", ("total",)),
            "Cart.State": Found(31, 37),
            "Cart.State.next": Found(34, 36, "", ("valueOf",)),
        },
    ),
    "cart.c": (
        """#include <stdio.h>
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* What is
   bought. */
struct cart {
    int size;
};

typedef struct {
    int x;
} Point;

#ifdef DEBUG
// Says how many.
static char **names_of(struct cart *cart)
{
    return lookup(cart)->names(MAX(1, 2));
}
#endif

int (*handler(int kind))(int) {
    return handlers[kind](0) + (*fallback)(1);
}

void later(int kind);
""",
        {
            "": Found(1, 26),
            "cart": Found(4, 8, "What is bought."),
            "Point": Found(10, 12),
            "names_of": Found(15, 19, "Says how many.", ("lookup", "names", "MAX")),
            "handler": Found(22, 24),
        },
    ),
    "cart.hpp": (
        """#pragma once
namespace shop::core {

class Item;

/// Holds what is bought.
template <typename T>
class Cart : public Base<T> {
 public:
  Cart() : size_(0) { clear(); }
  ~Cart() {
    free(items_);
  }
  bool operator<(const Cart& other) const {
    return size_ < other.size();
  }
  operator bool() const {
    return true;
  }
  int size() const;
};

}  // namespace shop::core

template <class T>
int shop::core::Cart<T>::size() const {
  return std::make_unique<Counter>(this)->count(new Item(1));
}

namespace {
int hidden() {
  return shown<int>(1);
}
}  // namespace
""",
        {
            "": Found(1, 34),
            "shop.core": Found(2, 23),
            "shop.core.Cart": Found(6, 21, "Holds what is bought.", ("clear",)),
            "shop.core.Cart.Cart": Found(10, 10, "", ("clear",)),
            "shop.core.Cart.~Cart": Found(11, 13, "", ("free",)),
            "shop.core.Cart.operator<": Found(14, 16, "", ("size",)),
            "shop.core.Cart.operator bool": Found(17, 19),
            "shop.core.Cart.size": Found(25, 28, "", ("make_unique", "count", "Item")),
            "hidden": Found(31, 33, "", ("shown",)),
        },
    ),
    "cart.rs": (
        """use std::fmt;

/// What is bought.
#[derive(Debug)]
pub struct Item {
    price: u32,
}

impl<T: Clone> fmt::Display for Cart<T> {
    /// Shows it.
    ///
    /// In one line.
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "{}", 1)?;
        self.items.iter().sum::<u32>()
    }
}

trait Priced {
    fn price(&self) -> u32;
    fn double(&self) -> u32 {
        Item { price: self.price() }.price
    }
}

mod tests {
    #[test]
    fn adds() {
        super::total::<u32>(Cart::new());
    }
}
""",
        {
            "": Found(1, 1),
            "Item": Found(3, 7, "What is bought."),
            "Cart": Found(9, 17),
            "Cart.fmt": Found(10, 16, "Shows it.", ("write", "iter", "sum")),
            "Priced": Found(19, 24),
            "Priced.double": Found(21, 23, "", ("Item", "price")),
            "tests": Found(26, 31),
            "tests.adds": Found(27, 30, "", ("total", "new")),
        },
    ),
    "cart.rb": (
        """require "set"

# Everything of the shop.
module Shop
  class Cart < Base
    attr_reader :items

    # Starts empty.
    # With a clock.
    def initialize(clock)
      @log = Log::File.new(clock)
      items.each { |item| check(item) }
    end

    class << self
      def load!(path)
        parse path
      end
    end

    def ==(other)
      same?(other)
    end
  end
end
""",
        {
            "": Found(1, 1, "", ("require",)),
            "Shop": Found(3, 25, "Everything of the shop."),
            "Shop.Cart": Found(5, 24, "", ("attr_reader",)),
            "Shop.Cart.initialize": Found(8, 13, "Starts empty. With a clock.", ("File", "each", "check")),
            "Shop.Cart.load!": Found(16, 18, "", ("parse",)),
            "Shop.Cart.==": Found(21, 23, "", ("same?",)),
        },
    ),
    "cart.php": (
        """<?php
namespace Shop;

/** Holds what is bought. */
#[Entity]
abstract class Cart extends Base
{
    public function __construct(private Clock $clock)
    {
        parent::__construct();
    }

    abstract function pay();

    /**
     * The sum.
     * @return int
     */
    public static function total(): int
    {
        $log = new \\Log\\File(open("a"));
        return $this->items?->sum(Tax::rate());
    }
}

function helper($x) {
    return $x(1);
}
""",
        {
            "": Found(1, 2),
            "Cart": Found(4, 24, "Holds what is bought."),
            "Cart.__construct": Found(8, 11, "", ("__construct",)),
            "Cart.total": Found(15, 23, "The sum.", ("File", "open", "sum", "rate")),
            "helper": Found(26, 28),
        },
    ),
    "Cart.swift": (
        """import Foundation

/// Holds what is bought.
@objc
public class Cart<T>: Base {
    let size = 1

    init(clock: Clock) {
        super.init(clock: clock)
    }

    deinit {
        close()
    }

    func total(of kind: Kind) async throws -> Int {
        return try await items.map { price($0) }.sum(Tax(kind))
    }
}

extension Cart where T == Int {
    static func == (left: Cart, right: Cart) -> Bool {
        same(left, right)
    }
}

protocol Priced {
    func price() -> Int
}
""",
        {
            "": Found(1, 1),
            "Cart": Found(3, 19, "Holds what is bought."),
            "Cart.init": Found(8, 10, "", ("init",)),
            "Cart.deinit": Found(12, 14, "", ("close",)),
            "Cart.total": Found(16, 18, "", ("map", "price", "sum", "Tax")),
            "Cart.==": Found(22, 24, "", ("same",)),
            "Priced": Found(27, 29),
        },
    ),
    "Cart.kt": (
        """package shop

import shop.tax.Tax

/** Holds what is bought. */
@Serializable
data class Cart(val clock: Clock) : Base(clock), Priced {
    val size = 1

    constructor(size: Int) : this(Clock()) {
        load(size)
    }

    override suspend fun total(kind: Kind): Int {
        return items.map { price(it) }.sum(Tax<Int>(kind))
    }

    fun double() = total() * 2

    companion object {
        fun empty(): Cart {
            return Cart(clock)
        }
    }
}

fun Cart.show(): String {
    return toString()
}

object Registry {
    fun find() {
        lookup()
    }
}
""",
        {
            "": Found(1, 3),
            "Cart": Found(5, 25, "Holds what is bought.", ("Base", "Clock", "total")),
            "Cart.constructor": Found(10, 12, "", ("Clock", "load")),
            "Cart.total": Found(14, 16, "", ("map", "price", "sum")),
            "Cart.double": Found(18, 18, "", ("total",)),
            "Cart.empty": Found(21, 23, "", ("Cart",)),
            "show": Found(27, 29, "", ("toString",)),
            "Registry": Found(31, 35),
            "Registry.find": Found(32, 34, "", ("lookup",)),
        },
    ),
    "cart.sh": (
        """#!/bin/bash
set -e

# Adds a file
# to the cart.
add() {
  local size="$(measure "$1")"
  if is_large "$size"; then compress "$1" | store; fi
}

function total-of {
  add "$@"
}

total-of "$@"
""",
        {
            "": Found(1, 15, "", ("set", "total-of")),
            "add": Found(4, 9, "Adds a file to the cart.", ("measure", "is_large", "compress", "store")),
            "total-of": Found(11, 13, "", ("add",)),
        },
    ),
    "Cart.vue": (
        """<template>
  <button @click="add()">Add</button>
</template>

<script lang="ts">
import { defineComponent } from "vue"

export default defineComponent({
  methods: {
    /** Adds one. */
    add(item: Item): void {
      this.items.push(new Line(item))
    },
  },
})
</script>

<style>
button { color: red; }
</style>
""",
        {
            "": Found(1, 20, "", ("defineComponent",)),
            "add": Found(10, 13, "Adds one.", ("push", "Line")),
        },
    ),
    "cart.tsx": (
        """/**
 * Shows the cart.
 *
 * With its total.
 */
export function View({ cart }: Props): Node {
  const total = useMemo(() => cart.lines?.sum(), [cart])
  return <div><Line total={format(total)} /></div>
}
""",
        {"View": Found(1, 9, "Shows the cart.", ("useMemo", "sum", "Line", "format"))},
    ),
    "cart.go": (
        """package shop

// Cart holds
// what is bought.
//
// For a while.
type Cart struct {
	size int
}

// Total sums up.
//
//go:noinline
func (c *Cart[K]) Total(kind Kind) int {
	line := &tax.Line{Kind: kind}
	return line.Price(len(c.items))
}
""",
        {
            "": Found(1, 1),
            "Cart": Found(3, 9, "Cart holds what is bought."),
            "Cart.Total": Found(11, 17, "Total sums up.", ("Line", "Price", "len")),
        },
    ),
    "cart.py": (
        """# Not a docstring.
@app.route(path())
def total(cart: Cart) -> int:
    return sum(tax.Line(item).price for item in cart.items[0](1))
""",
        {"total": Found(1, 4, "", ("route", "path", "sum", "Line"))},
    ),
}

LANGUAGES = sorted({"." + path.rpartition(".")[2] for path in SOURCES})


def found_in(chunks: list[Chunk]) -> dict[str, Found]:
    """The first chunk of each symbol."""
    found: dict[str, Found] = {}
    for it in chunks:
        found.setdefault(it.symbol, Found(it.start_line, it.end_line, it.docstring, it.calls))
    return found


@pytest.mark.parametrize("path", SOURCES)
def test_chunks__have_the_symbol_rows_docstring_and_calls_of_each_definition(path: str) -> None:
    source, expected = SOURCES[path]

    assert found_in(chunk_file(path, source.encode())) == expected


@pytest.mark.parametrize("path", SOURCES)
def test_chunks__say_nothing_twice_and_leave_out_no_line(path: str) -> None:
    source, _ = SOURCES[path]

    chunks = chunk_file(path, source.encode())

    shown = {line for chunk in chunks for line in chunk.text.split("\n")}
    assert {line for line in source.split("\n") if line.strip()} <= shown
    assert all(
        chunk.embedded_text == "\n".join([path, *[chunk.symbol] * bool(chunk.symbol), chunk.text]) for chunk in chunks
    )


def test_calls__change_neither_what_is_embedded_nor_its_hash() -> None:
    source, _ = SOURCES["cart.py"]
    (chunk,) = chunk_file("cart.py", source.encode())
    without = Chunk(
        path=chunk.path,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        symbol=chunk.symbol,
        docstring=chunk.docstring,
        text=chunk.text,
    )

    assert chunk.calls
    assert (without.embedded_text, without.content_hash) == (chunk.embedded_text, chunk.content_hash)


@pytest.mark.parametrize(
    ("path", "signatures"),
    [
        ("Cart.java", {"Cart": range(8, 9), "Cart.total": range(18, 19)}),
        ("cart.c", {"names_of": range(15, 16), "Point": range(9, 10)}),
        ("cart.hpp", {"shop.core.Cart": range(7, 8), "hidden": range(30, 31)}),
        ("cart.rs", {"Item": range(4, 5), "Cart.fmt": range(12, 13)}),
        ("cart.rb", {"Shop.Cart.initialize": range(9, 10)}),
        ("cart.php", {"Cart": range(5, 6), "Cart.total": range(18, 19)}),
        ("Cart.kt", {"Cart.total": range(13, 14), "Cart.empty": range(20, 21)}),
    ],
)
def test_signature__starts_below_the_annotations_and_ends_at_the_body(path: str, signatures: dict[str, range]) -> None:
    structure = structure_of(path, SOURCES[path][0])

    assert structure is not None
    found = {it.symbol: it.signature for it in flat(structure.definitions)}
    assert {symbol: found[symbol] for symbol in signatures} == signatures


def flat(definitions: Sequence[Definition]) -> list[Definition]:
    return [it for definition in definitions for it in (definition, *flat(definition.inner))]


def test_the_comment_above__is_the_docstring_of_the_first_piece_alone() -> None:
    source = "/** Counts\n * sheep. */\nvoid count() {\n" + "  step();\n" * 60 + "}\n"

    first, second = chunk_file("a.c", source.encode())

    assert first.embedded_text == f"a.c\ncount\n{first.text}"
    assert second.embedded_text == f"a.c\ncount\n{second.text}"
    assert (first.docstring, second.docstring) == ("Counts sheep.", "")
    assert second.calls == ("step",)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
def test_grammars__are_installed_and_know_the_calls(syntax: Syntax) -> None:
    language = language_of(syntax.grammar)

    assert language is not None
    assert [it for it in syntax.calls if not language.id_for_node_kind(it, True)] == []


@pytest.mark.parametrize("suffix", LANGUAGES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_text__is_read_without_an_error_and_every_line_is_shown(suffix: str, data: st.DataObject) -> None:
    lines = [line for path, (source, _) in SOURCES.items() if path.endswith(suffix) for line in source.split("\n")]
    parts = st.one_of(st.sampled_from(lines), st.text(max_size=20), st.sampled_from(list("(){}[]<>\"'`#/*:;,@$\\ \t")))
    separator = data.draw(st.sampled_from(["", " ", "\n"]))
    source = separator.join(data.draw(st.lists(parts, max_size=40)))

    chunks = chunk_file(f"a{suffix}", source.encode("utf-8", "replace"))

    shown = {line for chunk in chunks for line in chunk.text.split("\n")}
    read = source.encode("utf-8", "replace").decode().replace("\r\n", "\n")
    assert {line for line in read.split("\n") if line.strip()} <= shown


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize("part", ["{(", "a<", "-", "#", "a => ", "a =\n> (b) ", "! "])
def test_hostile_repetition__is_read_or_given_up_in_time(
    suffix: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definition, "PARSE_CPU_S_MAX", 0.1)

    began_s = time.thread_time()

    chunks = chunk_file(f"a{suffix}", (part * (32_000 // len(part))).encode())

    assert chunks
    assert time.thread_time() - began_s < 1


SHELL_OF_ALL_PLANES = """
import random
from runtime.index.chunk import chunk_file
chance = random.Random(7)
for _ in range(3000):
    planes = [chance.choice(((32, 127), (0xA0, 0xD800), (0x10000, 0x110000))) for _ in range(chance.randrange(200))]
    letters = [chr(chance.randrange(*plane)) for plane in planes]
    letters.insert(0, chance.choice(("local size=", "set -e", "function a {", "cat <<E\\n", "")))
    chunk_file("a.sh", "".join(letters).encode())
"""


def test_shell__of_letters_that_its_grammar_does_not_expect_ends_no_process() -> None:
    """In a process of its own, which a grammar that reads foreign memory would end."""
    done = subprocess.run([sys.executable, "-c", SHELL_OF_ALL_PLANES], check=False, timeout=300)
    assert done.returncode == 0


def test_shell__names_keep_their_letters() -> None:
    chunks = chunk_file("a.sh", "größe() {\n  echo żółw | miara\n}\n".encode())
    assert [(chunk.symbol, chunk.calls) for chunk in chunks] == [("größe", ("echo", "miara"))]


def test_nesting__is_that_of_brackets_and_of_angles_and_hashes_in_a_row() -> None:
    assert nesting_of(b"") == 0
    assert nesting_of(b")))f(a[{}])") == 3
    assert nesting_of(b"(((\n" + b"))" * 9 + b"((") == 3
    assert nesting_of(b"i < n; j < n; k < n;") == 1
    assert nesting_of(b"List<Map<A, Set<B>>>" * 3) == 3
    assert nesting_of(b"# a\n## b\n" * 9) == 2


def test_arrows__are_counted_by_the_statement_whatever_stands_between_their_halves() -> None:
    assert arrows_of(b"") == arrows_of(b"=") == arrows_of(b"a >= b; = a >") == 0
    assert arrows_of(b"a => b =\n\t> c = > d;" * 9) == 3
    assert arrows_of(b"{x => 1} {y => 2, z => 3}") == 2
    assert arrows_of(b"a ==> b <=> c") == 2


def test_code_with_arrows__is_read_however_many_they_are_and_java_with_some() -> None:
    many = definition.NESTING_MAX + 1
    php = "<?php\nfunction f() {}\n$a = [" + "'a' => 1, " * many + "];\n"
    assert structure_of("a.php", php) is not None
    java = "class A {\n  // " + "a => b " * (many - 1) + "\n  void f() {}\n}\n"
    assert structure_of("A.java", java) is not None
    assert structure_of("A.java", java.replace("//", "// =>")) is None


def test_what_nests_deeper_than_any_code__is_read_as_text() -> None:
    deep = "(" * (definition.NESTING_MAX + 1)

    assert structure_of("a.py", f"def f(): pass\n{deep}") is None
    assert structure_of("a.py", f"def f(): pass\n{deep[1:]}") is not None
    assert structure_of("a.py", "def f(): pass\n\0") is None
