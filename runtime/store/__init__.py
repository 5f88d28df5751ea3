"""The one DuckDB file, its group-committing writer, and the blob folder beside it."""
