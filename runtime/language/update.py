"""`make texts`: brings the catalogues after the code. What is new waits for its translation, what is unused goes."""

from runtime.language.catalogue import TRANSLATED, read, write
from runtime.language.extraction import template
from runtime.language.faults import faults


def main() -> None:
    texts = template()
    for code in TRANSLATED:
        catalogue = read(code)
        catalogue.update(texts, no_fuzzy_matching=True, update_creation_date=False)
        write(catalogue, code)
        print(f"{code}.po: {len(catalogue)} texts")
        for fault in faults(catalogue, texts):
            print(f"  {fault}")


if __name__ == "__main__":
    main()
