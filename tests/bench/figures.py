"""The one shape of a measured figure: a JSON object a line, the same for every benchmark and the chaos run."""


def figure(
    bench: str,
    name: str,
    value: float,
    unit: str,
    *,
    against: str | None = "",
    ratio: float | None = None,
    target: object = None,
    holds: bool = True,
) -> dict[str, object]:
    """`against` is the peer or limit of the same run, `ratio` the value to it; `holds` was judged by `target`."""
    return {
        "bench": bench,
        "figure": name,
        "value": value,
        "unit": unit,
        "against": against,
        "ratio": ratio,
        "target": target,
        "holds": holds,
    }
