"""Download links: signed, good for one package until a moment, and for whoever has them.

A link names the project, the package's SHA-256 and when it ends; its signature is an HMAC of the three, so that nothing
has to be remembered and every replica knows it.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from runtime.errors import ExpiredError, ForbiddenError
from runtime.ids import ProjectId

_ASK_ANEW = "Ask for a new link: `masterbuilder package PROJECT --link`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    project: ProjectId
    sha256: str
    """Of the package it is for."""
    expires_s: int
    """Seconds since 1970."""
    signature: str

    @property
    def path(self) -> str:
        """Where it leads at any HTTP door."""
        return f"/api/v1/downloads/{self.project}/{self.sha256}/{self.expires_s}/{self.signature}"


def make_link(key: bytes, project: ProjectId, sha256: str, now: datetime, lifetime: timedelta) -> Link:
    expires_s = int((now + lifetime).timestamp())
    return Link(
        project=project, sha256=sha256, expires_s=expires_s, signature=_signature(key, project, sha256, expires_s)
    )


def check_link(key: bytes, link: Link, now: datetime) -> None:
    """Raises ForbiddenError for what was not signed so, ExpiredError for what was and is over."""
    expected = _signature(key, link.project, link.sha256, link.expires_s)
    if not hmac.compare_digest(expected.encode(), link.signature.encode()):
        raise ForbiddenError("This download link is not valid: it was cut off or changed.", _ASK_ANEW)
    if now.timestamp() >= link.expires_s:
        raise ExpiredError("This download link has expired.", _ASK_ANEW)


def _signature(key: bytes, project: str, sha256: str, expires_s: int) -> str:
    text = f"download/{project}/{sha256}/{expires_s}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
