"""What an index answers, as HTTP shows it."""

from dataclasses import asdict
from typing import Any

from runtime.index.filter import language_name
from runtime.index.hit import Hit, Related


def hit_json(hit: Hit) -> dict[str, Any]:
    return {
        "path": hit.path,
        "start_line": hit.start_line,
        "end_line": hit.end_line,
        "symbol": hit.symbol,
        "kind": hit.kind,
        "language": language_name(hit.path),
        "score": round(hit.score, 4),
        "why": {
            "meaning": round(hit.why.meaning, 4),
            "words": round(hit.why.words, 4),
            "names": round(hit.why.names, 4),
        },
        "text": hit.text,
    }


def related_json(related: Related) -> dict[str, Any]:
    return asdict(related)
