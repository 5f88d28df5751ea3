"""Whose a project is: asked before anything else at every door of a project."""

import uuid

from runtime.entity.journal import Journal
from runtime.entity.port import Entities
from runtime.errors import NotFoundError
from runtime.ids import ProjectId, UserId, project_entity
from runtime.project.messages import Describe, ProjectView


async def owned_project(journal: Journal, entities: Entities, user: UserId, project: str) -> ProjectView:
    """Raises NotFoundError for what is not there and for what is another's alike."""
    not_found = NotFoundError("You have no project with this id.", "GET /api/v1/projects lists yours.")
    try:
        if str(uuid.UUID(project)) != project:
            raise not_found
    except ValueError:
        raise not_found from None
    entity = project_entity(ProjectId(project))
    head = await journal.head(entity)
    if head is None or head.owner != user:
        raise not_found
    view: ProjectView = await entities.ask(entity, Describe())
    return view
