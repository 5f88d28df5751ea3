"""Which adapter speaks to which provider."""

from collections.abc import Mapping

from runtime.catalogue.endpoints import SERVICES, Family, Service, family
from runtime.providers.adapter import Adapter
from runtime.providers.adapters.anthropic_sdk import AnthropicSdk
from runtime.providers.adapters.gemini_sdk import GeminiSdk
from runtime.providers.adapters.openai_sdk import OpenAISdk


class Adapters:
    """One adapter a wire format. `services` tells the formats; whoever is not among them speaks OpenAI's."""

    def __init__(self, *, timeout_s: float, services: Mapping[str, Service] = SERVICES) -> None:
        self._services = services
        self._by_family: Mapping[Family, Adapter] = {
            "openai": OpenAISdk(timeout_s=timeout_s, services=services),
            "anthropic": AnthropicSdk(timeout_s=timeout_s),
            "gemini": GeminiSdk(timeout_s=timeout_s),
        }

    def of(self, provider: str) -> Adapter:
        return self._by_family[family(provider, self._services)]

    async def close(self) -> None:
        for adapter in self._by_family.values():
            await adapter.close()
