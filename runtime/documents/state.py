"""What a library is after its events."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from runtime.documents.messages import Item
from runtime.entity.journal import EventRecord
from runtime.ids import BlobId, DocumentId


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryState:
    items: Mapping[DocumentId, Item] = field(default_factory=dict)
    """In the order of their uploads."""
    leaving: frozenset[BlobId] = frozenset()
    """Files of deleted documents that are still on disk."""

    @property
    def searched(self) -> Sequence[Item]:
        return [item for item in self.items.values() if item.status == "indexed"]

    @property
    def unread(self) -> Sequence[Item]:
        return [item for item in self.items.values() if item.status in ("pending", "processing")]

    def with_item(self, document: DocumentId, **changes: Any) -> "LibraryState":
        item = self.items.get(document)
        return self if item is None else replace(self, items={**self.items, document: replace(item, **changes)})

    def after(self, event: EventRecord) -> "LibraryState":
        data = event.data
        match event.type:
            case "document.added":
                item = Item(**data["item"], created_at=event.at)
                return replace(self, items={**self.items, item.id: item})
            case "document.processing":
                return self.with_item(data["document"], status="processing")
            case "document.indexed":
                return self.with_item(data["document"], status="indexed", chunk_count=data["chunks"], reason="")
            case "document.failed":
                return self.with_item(data["document"], status="failed", reason=data["reason"])
            case "document.deleted":
                items = dict(self.items)
                gone = items.pop(data["document"])
                return replace(self, items=items, leaving=self.leaving | {gone.blob})
            case "document.removed":
                return replace(self, leaving=self.leaving - {data["blob"]})
            case _:
                return self

    def frozen(self) -> Mapping[str, Any]:
        items = [{**asdict(item), "created_at": item.created_at.isoformat()} for item in self.items.values()]
        return {"items": items, "leaving": sorted(self.leaving)}

    @classmethod
    def thawed(cls, data: Mapping[str, Any]) -> "LibraryState":
        items = [Item(**{**item, "created_at": datetime.fromisoformat(item["created_at"])}) for item in data["items"]]
        return cls(items={item.id: item for item in items}, leaving=frozenset(data["leaving"]))
