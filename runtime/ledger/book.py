"""What every part of the books stands on: the database and a clock."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from runtime.store.database import Database


class Book:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def _rows(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """As they were after every write that was answered before."""
        return await self._database.rows(query, values)
