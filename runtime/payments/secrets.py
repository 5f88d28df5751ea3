"""The secrets that the service shares with payment providers.

`masterbuilder up` finds them in its own environment and keeps them, sealed, in the data folder, from where the API's
replicas read them when a webhook comes. So they are in the environment of no process of the service, and of none that
such a process starts; and a new secret counts from the next `up` on, without a restart.
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.config import Secrets
from runtime.errors import BadInputError, UnavailableError
from runtime.files import sync, write_beside
from runtime.payments.signed import parse_secret
from runtime.payments.terms import ProviderTerms
from runtime.store.seal import Seal

FILE = "payment_secrets"
_SUBJECT = "payment secrets"


class PaymentSecrets:
    """Everything blocks for small files, and raises StoreUnavailableError for a file that does not open."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        self._data_dir = data_dir
        self._environment = environment

    def secret(self, variable: str) -> bytes:
        """The environment's own where it has one. Raises UnavailableError, without a secret, where nobody gave it."""
        text = self._environment.get(variable) or self._kept().get(variable)
        if not text:
            raise UnavailableError(
                f"{variable} is not known here, so nothing can be paid or confirmed now.",
                "The operator sets it and runs `masterbuilder up`.",
            )
        return parse_secret(text, variable)

    def keep(self, providers: Sequence[ProviderTerms]) -> None:
        """Keeps what the environment gives for these providers, beside what was kept before.

        Raises BadInputError for a secret that is none, or that was never given.
        """
        names = {terms.secret_variable for terms in providers}
        kept = self._kept() if names else {}
        given = {name: self._environment[name] for name in names if self._environment.get(name)}
        for name in sorted(names):
            if name not in given and name not in kept:
                raise BadInputError(f"{name} is not set, and a payment provider needs it.", f"`export {name}=...`")
            parse_secret(given.get(name) or kept[name], name)
        if {**kept, **given} != kept:
            self._write({**kept, **given})

    def _kept(self) -> dict[str, str]:
        try:
            sealed = base64.b64decode((self._data_dir / FILE).read_text(), validate=True)
        except FileNotFoundError:
            return {}
        except binascii.Error:
            sealed = b""
        return self._seal().open_json(sealed, _SUBJECT)

    def _write(self, secrets: Mapping[str, str]) -> None:
        path = self._data_dir / FILE
        sealed = self._seal().close_json(secrets, _SUBJECT)
        os.replace(write_beside(path, base64.b64encode(sealed).decode()), path)
        sync(self._data_dir)

    def _seal(self) -> Seal:
        return Seal(Secrets.load(self._data_dir, self._environment).data_encryption_key)
