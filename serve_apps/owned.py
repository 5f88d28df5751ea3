"""A caller's own project, at the doors of HTTP."""

from runtime.ledger.port import Identity
from runtime.project.messages import ProjectView
from runtime.project.owned import owned_project
from serve_apps.system import System


async def owned(system: System, user: Identity, project: str) -> ProjectView:
    """Raises NotFoundError for what is not there and for what is another's alike."""
    return await owned_project(system.journal, system.entities, user.user, project)
