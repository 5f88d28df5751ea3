"""The payment providers of this installation, each made when it is needed: its secret may have changed."""

import time
from collections.abc import Callable, Sequence

from runtime.errors import NotFoundError
from runtime.payments.port import PaymentProvider
from runtime.payments.secrets import PaymentSecrets
from runtime.payments.signed import SignedPage
from runtime.payments.terms import ProviderTerms


class Payments:
    """`clock` tells seconds since 1970."""

    def __init__(
        self, providers: Sequence[ProviderTerms], secrets: PaymentSecrets, clock: Callable[[], float] = time.time
    ) -> None:
        self._providers = {terms.id: terms for terms in providers}
        self._secrets = secrets
        self._clock = clock

    @property
    def ids(self) -> Sequence[str]:
        return list(self._providers)

    def provider(self, id: str) -> PaymentProvider:
        """Blocks for a small file. Raises NotFoundError, UnavailableError while its secret is not known."""
        terms = self._providers.get(id)
        if terms is None:
            raise NotFoundError(
                f"There is no payment provider {id[:60]!r}.", "GET /api/v1/products names those there are."
            )
        secret = self._secrets.secret(terms.secret_variable)
        return SignedPage(id=terms.id, page_url=terms.page_url, secret=secret, clock=self._clock)
