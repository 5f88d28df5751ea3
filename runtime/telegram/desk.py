"""How a desk is put together from an installation's parts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from runtime.catalogue.catalogue import Catalogue
from runtime.config import Secrets, Settings
from runtime.entity.journal import Journal
from runtime.entity.port import Entities
from runtime.errors import MasterbuilderError
from runtime.keys.office import KeyOffice
from runtime.ledger.port import Ledger
from runtime.project.links import make_link
from runtime.project.messages import ProjectView
from runtime.project.quote import prices_of, quote_ucredits
from runtime.reports.port import Reporting
from runtime.telegram.calls import BotApi
from runtime.telegram.talk import Desk

SMALL_SCOPE = "A small program that does a few things, with its tests and documents."


def desk_of(
    settings: Settings,
    secrets: Secrets,
    ledger: Ledger,
    entities: Entities,
    journal: Journal,
    reports: Reporting,
    keys: KeyOffice,
    api: BotApi,
    catalogue: Callable[[], Catalogue],
) -> Desk:
    return Desk(
        settings=settings,
        ledger=ledger,
        journal=journal,
        entities=entities,
        reports=reports,
        keys=keys,
        api=api,
        link=partial(_link, settings, secrets.link_key),
        small_quote=lambda: _small_quote(settings, catalogue()),
        bot=_Itself(api).known,
    )


def _small_quote(settings: Settings, catalogue: Catalogue) -> int:
    """0 where the models have no price yet: then nothing is said of it."""
    try:
        return quote_ucredits(SMALL_SCOPE, *prices_of(settings, catalogue), settings.tariff)
    except MasterbuilderError:
        return 0


def _link(settings: Settings, key: bytes, view: ProjectView) -> str:
    """Only of a project with a package."""
    assert view.package is not None, "asked of a package"
    lifetime = timedelta(hours=settings.download_link_ttl_hours)
    link = make_link(key, view.id, view.package.sha256, datetime.now(UTC), lifetime)
    return f"{(settings.public_url or settings.api_url).rstrip('/')}{link.path}"


class _Itself:
    """The bot's id and username, asked once."""

    def __init__(self, api: BotApi) -> None:
        self._api = api
        self._known: tuple[int, str] | None = None

    async def known(self) -> tuple[int, str]:
        if self._known is None:
            me = await self._api.call("getMe", {})
            self._known = int(me["id"]), str(me["username"])
        return self._known
