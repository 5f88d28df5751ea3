"""The names of things. An id is a string that sorts by nothing and means nothing but itself."""

import secrets
import uuid
import zlib
from typing import NewType

UserId = NewType("UserId", str)
ProjectId = NewType("ProjectId", str)
TaskId = NewType("TaskId", str)
"""An item of a plan: `T-001`."""
DocumentId = NewType("DocumentId", str)
"""A document that somebody uploaded: a random UUID."""
RepositoryId = NewType("RepositoryId", str)
"""A repository that somebody cloned from elsewhere: a random UUID."""
EntityId = NewType("EntityId", str)
"""`<kind>:<name>`, for example `project:6f1c...` or `user:local-admin`."""
RunId = NewType("RunId", str)
"""One run of one step: `<entity>/<step>#<run>`. A step has one run, unless a crash cut the first off."""
CallId = NewType("CallId", str)
"""One model call: `<run>/<n>`, or `gw-<random>` for a call that belongs to no step."""
BlobId = NewType("BlobId", str)
"""The SHA-256 of a stored file's plain bytes, in hex."""

PARTITION_COUNT = 1024

LOCAL_ADMIN = UserId("local-admin")
EVERYBODY = UserId("*everybody*")
"""Whose documents are for everybody. No person has this id."""


def new_project_id() -> ProjectId:
    return ProjectId(str(uuid.uuid4()))


def new_call_id() -> CallId:
    return CallId(f"gw-{secrets.token_hex(12)}")


def project_entity(project: ProjectId) -> EntityId:
    return EntityId(f"project:{project}")


def user_entity(user: UserId) -> EntityId:
    return EntityId(f"user:{user}")


def index_entity(project: ProjectId) -> EntityId:
    return EntityId(f"index:{project}")


def library_entity(user: UserId) -> EntityId:
    """Which documents a person has."""
    return EntityId(f"library:{user}")


def documents_entity(user: UserId) -> EntityId:
    """The index of a person's documents."""
    return EntityId(f"documents:{user}")


def repositories_entity(user: UserId) -> EntityId:
    """Which repositories of others a person has."""
    return EntityId(f"repositories:{user}")


def repository_entity(user: UserId, repository: RepositoryId) -> EntityId:
    """The copy and the index of one of them."""
    return EntityId(f"repository:{user}:{repository}")


def vectors_entity(owner: UserId) -> EntityId:
    """The vectors that are kept for a person's indexes."""
    return EntityId(f"vectors:{owner}")


def kind_of(entity: EntityId) -> str:
    """`project` for `project:6f1c...`."""
    return entity.split(":", 1)[0]


def name_of(entity: EntityId) -> str:
    """`6f1c...` for `project:6f1c...`."""
    return entity.split(":", 1)[1]


def partition_of(entity: EntityId) -> int:
    """The partition an entity belongs to, 0 to 1023, the same in every process (`hash()` is salted)."""
    return zlib.crc32(entity.encode()) % PARTITION_COUNT
