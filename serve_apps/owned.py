"""Whose a project is: asked before anything else at every door of a project."""

import uuid

from runtime.errors import NotFoundError
from runtime.ids import ProjectId, project_entity
from runtime.ledger.port import Identity
from runtime.project.messages import Describe, ProjectView
from serve_apps.system import System


async def owned(system: System, user: Identity, project: str) -> ProjectView:
    """Raises NotFoundError for what is not there and for what is another's alike."""
    not_found = NotFoundError("You have no project with this id.", "GET /api/v1/projects lists yours.")
    try:
        if str(uuid.UUID(project)) != project:
            raise not_found
    except ValueError:
        raise not_found from None
    entity = project_entity(ProjectId(project))
    head = await system.journal.head(entity)
    if head is None or head.owner != user.user:
        raise not_found
    view: ProjectView = await system.entities.ask(entity, Describe())
    return view
