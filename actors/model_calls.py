"""Model calls as the processes of the cluster make them."""

from actors.ledger import LedgerHandle
from runtime.catalogue.access import Access
from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.endpoints import MORE_SERVICES, services
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Settings
from runtime.keys.keys import KeyLeases
from runtime.ledger.port import Credit
from runtime.providers.adapters.adapters import Adapters
from runtime.providers.calls import ModelCalls


def model_calls(settings: Settings, ledger: LedgerHandle, keys: KeyLeases, credit: Credit) -> ModelCalls:
    """Knows nothing and holds nothing before its first call."""
    known = services({MORE_SERVICES: settings.openai_compatible_json})
    routes = Routes(CATALOGUE, Access.parse(settings.provider_policy_json, known=known))
    market = Market(routes, source=ledger, services=known)
    adapters = Adapters(timeout_s=settings.call_timeout_s, services=known)
    return ModelCalls(credit, keys, market, settings, adapters=adapters)
