"""Model calls as the processes of the cluster make them."""

from actors.ledger import LedgerHandle
from runtime.config import Settings
from runtime.ledger.port import Credit
from runtime.providers.access import Access
from runtime.providers.adapters.adapters import Adapters
from runtime.providers.calls import ModelCalls
from runtime.providers.catalogue import CATALOGUE
from runtime.providers.endpoints import MORE_SERVICES, services
from runtime.providers.keys import KeyLeases
from runtime.providers.market import Market
from runtime.providers.routes import Routes


def model_calls(settings: Settings, ledger: LedgerHandle, keys: KeyLeases, credit: Credit) -> ModelCalls:
    """Knows nothing and holds nothing before its first call."""
    known = services({MORE_SERVICES: settings.openai_compatible_json})
    routes = Routes(CATALOGUE, Access.parse(settings.provider_policy_json, known=known))
    market = Market(routes, source=ledger, services=known)
    adapters = Adapters(timeout_s=settings.call_timeout_s, services=known)
    return ModelCalls(credit, keys, market, settings, adapters=adapters)
