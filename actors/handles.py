"""The one place that makes and finds Ray actors, and that turns Ray's failures into ours."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runtime.errors import UnavailableError, WorkLostError

NAMESPACE = "masterbuilder"
KEY_POOL = "key-pool-"
"""Before the provider's name."""
ROUTER = "router"
RETRY_S = 0.2

T = TypeVar("T")


def ensure(name: str, actor_class: type, *args: Any, concurrency: int = 1_000, **placing: Any) -> ActorHandle[Any]:
    """The actor of this name, made when it is not there. It outlives its maker and is restarted for ever.

    `placing` are Ray's own options that say where. Blocks for a moment.
    """
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": concurrency,
        "num_cpus": 0,
        **placing,
    }
    remote_class: Any = ray.remote(actor_class)
    return remote_class.options(**options).remote(*args)  # type: ignore[no-any-return]


def find(name: str) -> ActorHandle[Any]:
    """Blocks for a moment. Raises UnavailableError when nobody made it yet."""
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError as error:
        raise UnavailableError(
            f"The actor {name} does not run.", "Start the service with `masterbuilder up`."
        ) from error


def this_actor() -> ActorHandle[Any]:
    """The one that this code runs in, for others to call."""
    myself: ActorHandle[Any] = ray.get_runtime_context().current_actor
    return myself


def names() -> Sequence[str]:
    """Of every actor that runs or is being restarted. Blocks for a moment."""
    listed = ray.util.list_named_actors(all_namespaces=True)
    return [entry["name"] for entry in listed if entry["namespace"] == NAMESPACE]


def kill(actor: ActorHandle[Any]) -> None:
    """For good: it is not restarted, and its name is free. Blocks for a moment."""
    ray.kill(actor, no_restart=True)


def live_nodes() -> Sequence[str]:
    """The ids of those that are alive, by what Ray knows. Blocks for a moment."""
    return sorted(node["NodeID"] for node in cast("Any", ray).nodes() if node["Alive"])


def on(node: str) -> NodeAffinitySchedulingStrategy:
    """There and nowhere else: when the node is gone, so is the actor, and its maker makes another. Ray's softer ways
    put two actors that need no CPU on one of two nodes in a third of the runs.
    """
    return NodeAffinitySchedulingStrategy(node, soft=False)


def this_node() -> str:
    return ray.get_runtime_context().get_node_id()


async def call(send: Callable[[], Awaitable[T]], *, what: str, patience_s: float = 30.0) -> T:
    """Sends a message that is safe to repeat, again and again while its actor restarts.

    Raises the actor's own error, or UnavailableError when `patience_s` is over.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return await once(send, what=what)
        except ActorGoneError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(RETRY_S)


async def once(send: Callable[[], Awaitable[T]], *, what: str, cancels: bool = False) -> T:
    """Sends a message that must not be repeated. Raises ActorGoneError when nobody knows whether it was carried out.

    With `cancels`, a cancelled caller cancels the work too; without, the actor finishes what it has begun.
    """
    answer = send()
    try:
        return await answer
    except asyncio.CancelledError:
        if cancels:
            ray.cancel(cast("ray.ObjectRef[T]", answer), recursive=False)
        raise
    except RayTaskError as error:
        raise cast("Exception", error.cause) from None
    except (ActorDiedError, ActorUnavailableError) as error:
        raise ActorGoneError(f"{what} is restarting.", "Try again in a few seconds.") from error
    except RayError as error:
        raise UnavailableError(
            f"{what} did not answer: {type(error).__name__}.", "Try again in a few seconds."
        ) from error


class ActorGoneError(WorkLostError):
    """The actor died or restarts. Its answer to a message in flight is lost."""
