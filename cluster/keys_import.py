"""Hands the provider keys of the caller's environment to the ledger, which keeps them sealed.

Runs as its own process, because it must connect to Ray: `python -m cluster.keys_import` reads the environment that
holds the keys as one JSON object from stdin, so that no process of the service ever has them in its own.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping

from runtime.errors import BadInputError, MasterbuilderError, UnavailableError

TIMEOUT_S = 90.0


async def import_keys(keys_environment: Mapping[str, str], process_environment: Mapping[str, str]) -> None:
    """Imports in a child process with `process_environment`, which names the Ray (RAY_ADDRESS) and the settings.

    The keys in the ledger are replaced by these; importing the same again changes nothing. Raises BadInputError for
    keys that cannot be read, UnavailableError when the ledger does not answer.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cluster.keys_import",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=dict(process_environment), cwd="/",
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer, noise = await child.communicate(json.dumps(dict(keys_environment)).encode())
    except TimeoutError as error:
        raise UnavailableError("The ledger did not take the provider keys in time.", "Start again.") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return
    try:
        told = json.loads(answer)
    except ValueError:
        last = (noise.decode(errors="replace").strip().splitlines() or ["no reason was given"])[-1]
        raise UnavailableError(f"The provider keys could not be imported: {last}", "Start again.") from None
    raise (BadInputError if told["refused"] else UnavailableError)(told["message"], told["next_step"])


def main() -> int:
    """Exit status 0, or 1 with the error as JSON on stdout."""
    try:
        _import(json.load(sys.stdin))
    except MasterbuilderError as error:
        refused = not isinstance(error, UnavailableError)
        print(json.dumps({"refused": refused, "message": error.message, "next_step": error.next_step}))
        return 1
    return 0


def _import(keys_environment: Mapping[str, str]) -> None:
    import ray

    from actors.key_pool import KeyPools
    from runtime.config import Settings
    from runtime.keys.environment import found_keys

    found = found_keys(keys_environment)
    if not found:
        return
    ray.init(os.environ["RAY_ADDRESS"], namespace="masterbuilder", log_to_driver=False, logging_level=logging.ERROR)
    try:
        asyncio.run(KeyPools(Settings.from_environment(os.environ)).replace(found))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
