"""How well the index finds code, on public packages that are fetched once and pinned."""
