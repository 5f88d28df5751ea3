"""Who calls what."""

import time

from runtime.index.chunk import Chunk, chunk_file
from runtime.index.relations import AMBIGUOUS_MAX, RELATED_MAX, Relations

SHOP = """
class Cart:
    def total(self):
        return sum(self.price(it) for it in self.items)

    def price(self, it):
        return rate(it)

def checkout(cart):
    pay(Cart().total())
"""
TAX = """
def rate(it):
    return 1

class Bill:
    def price(self):
        return 2

    def total(self):
        return self.price()
"""


def chunks_of(files: dict[str, str]) -> list[Chunk]:
    return [chunk for path in sorted(files) for chunk in chunk_file(path, files[path].encode())]


def named(chunks: list[Chunk], numbers: list[int]) -> list[tuple[str, str]]:
    return [(chunks[number].path, chunks[number].symbol) for number in numbers]


def test_callees__are_the_definitions_of_the_called_names_in_order_of_the_calls() -> None:
    chunks = chunks_of({"shop.py": SHOP, "tax.py": TAX})

    found = Relations(chunks).callees_of("checkout")

    assert named(chunks, found) == [("shop.py", "Cart"), ("shop.py", "Cart.total")]


def test_callees__of_the_same_class_come_before_those_of_other_files() -> None:
    chunks = chunks_of({"shop.py": SHOP, "tax.py": TAX})
    relations = Relations(chunks)

    assert named(chunks, relations.callees_of("Bill.total")) == [("tax.py", "Bill.price")]
    assert named(chunks, relations.callees_of("Cart.price")) == [("tax.py", "rate")]


def test_callers__are_those_whose_call_means_this_definition_and_not_its_namesake() -> None:
    chunks = chunks_of({"shop.py": SHOP, "tax.py": TAX})
    relations = Relations(chunks)

    assert named(chunks, relations.callers_of("Bill.price")) == [("tax.py", "Bill.total")]
    assert named(chunks, relations.callers_of("Cart.price")) == [("shop.py", "Cart.total")]
    assert named(chunks, relations.callers_of("rate")) == [("shop.py", "Cart.price")]


def test_callers__are_found_in_every_piece_and_in_the_rest_of_a_module() -> None:
    long = "def long():\n" + "    pass\n" * 50 + "    found()\n"
    chunks = chunks_of({"a.py": long + "\n\nfound()\n", "b.py": "def found(): pass\n"})

    found = Relations(chunks).callers_of("found")

    assert [(chunks[number].symbol, chunks[number].end_line) for number in found] == [("long", 52), ("", 55)]
    assert named(chunks, Relations(chunks).callees_of("long")) == [("b.py", "found")]


def test_a_name_defined_in_too_many_places__means_none_of_them() -> None:
    many = {f"m{number}/a.py": "def get(): pass\n" for number in range(AMBIGUOUS_MAX + 1)}
    caller = {"z/b.py": "def ask():\n    get()\n"}

    few = chunks_of({**dict(list(many.items())[1:]), **caller})
    assert len(Relations(few).callees_of("ask")) == AMBIGUOUS_MAX
    assert Relations(chunks_of({**many, **caller})).callees_of("ask") == []


def test_headings__define_nothing() -> None:
    chunks = chunks_of({"README.md": "# rate\nText.\n", "tax.py": "def bill():\n    rate()\n"})

    assert Relations(chunks).callees_of("bill") == []


def test_unknown_symbols__have_no_relations() -> None:
    relations = Relations(chunks_of({"shop.py": SHOP}))

    assert relations.callers_of("nothing") == []
    assert relations.callees_of("") == []


def test_a_hundred_thousand_chunks__are_related_in_time_and_within_bounds() -> None:
    names = [f"f{number % 50_000}" for number in range(100_000)]
    chunks = [
        Chunk(
            path=f"d{number // 1000}/f{number // 20}.py",
            start_line=1,
            end_line=9,
            symbol=f"C{number // 10}.{name}",
            docstring="",
            text="",
            calls=("common", names[number - 1], names[(number * 7) % 100_000]),
        )
        for number, name in enumerate(names)
    ]
    chunks.append(Chunk(path="common.py", start_line=1, end_line=2, symbol="common", docstring="", text=""))

    began_s = time.process_time()
    relations = Relations(chunks)
    callers = relations.callers_of("common")
    callees = relations.callees_of("C7.f77")

    assert time.process_time() - began_s < 20
    assert len(callers) == RELATED_MAX
    assert {76, 100_000} <= set(callees)
