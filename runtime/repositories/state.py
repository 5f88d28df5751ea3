"""Which repositories a person has, after their events."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from runtime.entity.journal import EventRecord
from runtime.ids import RepositoryId
from runtime.repositories.messages import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoriesState:
    items: Mapping[RepositoryId, Repository] = field(default_factory=dict)
    """In the order in which they were cloned first."""
    leaving: frozenset[RepositoryId] = frozenset()
    """Deleted ones whose copy or index may still be on disk."""

    def named(self, name: str) -> Repository | None:
        return next((item for item in self.items.values() if item.name.casefold() == name.casefold()), None)

    def with_item(self, repository: RepositoryId, **changes: Any) -> "RepositoriesState":
        item = self.items.get(repository)
        return self if item is None else replace(self, items={**self.items, repository: replace(item, **changes)})

    def after(self, event: EventRecord) -> "RepositoriesState":
        data = event.data
        match event.type:
            case "repository.added":
                item = Repository(**data["item"], created_at=event.at)
                return replace(self, items={**self.items, item.id: item})
            case "repository.began":
                return self.with_item(data["repository"], activity=data["activity"])
            case "repository.ended":
                return self.with_item(data["repository"], activity="")
            case "repository.cloned":
                return self.with_item(data["repository"], **data["now"], reason="")
            case "repository.indexed":
                return self.with_item(data["repository"], **data["now"])
            case "repository.deleted":
                items = dict(self.items)
                gone = items.pop(data["repository"])
                return replace(self, items=items, leaving=self.leaving | {gone.id})
            case "repository.removed":
                return replace(self, leaving=self.leaving - {data["repository"]})
            case _:
                return self

    def frozen(self) -> Mapping[str, Any]:
        items = [{**asdict(item), "created_at": item.created_at.isoformat()} for item in self.items.values()]
        return {"items": items, "leaving": sorted(self.leaving)}

    @classmethod
    def thawed(cls, data: Mapping[str, Any]) -> "RepositoriesState":
        items = [
            Repository(**{**item, "created_at": datetime.fromisoformat(item["created_at"])}) for item in data["items"]
        ]
        return cls(items={item.id: item for item in items}, leaving=frozenset(data["leaving"]))
