"""The program that Ray Serve starts in HAProxy's place, with a HAProxy that only tells how it was called."""

import re
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster import haproxy
from runtime.config import Settings

CONFIG = """global
    log 127.0.0.1:514 local0 info
    stats socket /tmp/x mode 666
defaults
    log global
    option splice-request
    option splice-response
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind 127.0.0.1:8000
listen stats
  bind *:{stats}
"""


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    binary = tmp_path / "it's haproxy"
    binary.write_text('#!/bin/sh\necho "$@"\n')
    binary.chmod(0o755)
    return binary


def started(environment: Mapping[str, str], config: str = CONFIG) -> tuple[subprocess.CompletedProcess[str], str]:
    file = Path(environment["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"])
    ports = {name: environment[f"RAY_SERVE_HAPROXY_{name.upper()}_PORT"] for name in ("metrics", "stats")}
    file.write_text(config.format(**ports))
    program = environment["RAY_SERVE_HAPROXY_BINARY_PATH"]
    done = subprocess.run([program, "-db", "-f", str(file), "-sf", "7"], capture_output=True, text=True, check=False)
    return done, file.read_text()


@pytest.mark.parametrize(
    ("http_host", "listens"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*"), ("10.1.2.3", "10.1.2.3")]
)
def test_haproxy__listens_where_it_should_and_tells_syslog_nothing(tmp_path, binary, http_host, listens):
    environment = haproxy.prepare(binary, Settings(http_host=http_host), tmp_path)
    done, config = started(environment)
    assert done.stdout.split() == ["-db", "-f", environment["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"], "-sf", "7"]
    ports = [environment[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("METRICS", "STATS")]
    binds = re.findall(r"bind (\S+)", config)
    assert binds == [f"127.0.0.1:{ports[0]}", f"{listens}:8000", f"127.0.0.1:{ports[1]}"]
    assert "514" not in config
    assert "splice" not in config
    assert "log global" in config


def test_haproxy__lets_nobody_tell_serve_what_to_do(tmp_path, binary):
    environment = haproxy.prepare(binary, Settings(), tmp_path)
    _, config = started(environment)
    frontend = config.partition("frontend http_frontend\n")[2].partition("    bind")[0]
    assert frontend.count("http-request del-header ") == 4
    assert frontend.count("http-request set-header ") == 1
    assert "timeout http-request " in frontend


def test_rules__are_understood_by_the_haproxy_that_ray_brings_along(tmp_path):
    program = haproxy.find()
    assert program is not None
    environment = haproxy.prepare(program, Settings(), tmp_path)
    rules = (Path(environment["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent / "rules").read_text()
    file = tmp_path / "haproxy.cfg"
    defaults = "defaults\n    mode http\n    timeout client 9s\n    timeout connect 9s\n    timeout server 9s\n"
    file.write_text(
        f"{defaults}frontend http_frontend\n{rules}    bind 127.0.0.1:1\n    http-request return status 200\n"
    )
    done = subprocess.run([program, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bind *:{stats}", "bind 0.0.0.0:{stats}"),
        ("bind *:{stats}", "bind *:{stats} proto h2"),
        ("frontend http_frontend", "frontend http"),
    ],
)
def test_configuration__that_we_would_not_correct_is_not_started(tmp_path, binary, before, after):
    environment = haproxy.prepare(binary, Settings(), tmp_path)
    done, _ = started(environment, CONFIG.replace(before, after))
    assert done.returncode == 1
    assert done.stdout == ""


def test_rays_template__is_as_we_expect_it():
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    template = (Path(ray.origin).parent / "serve/_private/haproxy_templates.py").read_text()
    binds = re.findall(r"^ *bind (.*)$", template, re.MULTILINE)
    assert [bind for bind in binds if "grpc" not in bind] == [
        ":{{ config.metrics_port }}",
        "{{ config.frontend_host }}:{{ config.frontend_port }}",
        "*:{{ config.stats_port }}",
    ]
    assert template.count("\nfrontend http_frontend\n") == 1
    assert "log {{ config.log_target }} local0 info" in template
    assert "    option splice-request\n    option splice-response\n" in template


def test_sockets_path__is_short_enough_with_the_nodes_id_and_haproxys_own_suffix(binary):
    folder = Path("/tmp") / ("mb-" + "8" * 8 + "-" + "x" * 8)
    folder.mkdir()
    try:
        environment = haproxy.prepare(binary, Settings(), folder)
        base, name = environment["RAY_SERVE_HAPROXY_SOCKET_PATH"].rsplit("/", 1)
        assert len(f"{base}/{'f' * 56}/{name}.{2**22}.tmp") <= 107
    finally:
        for file in (folder / "h").iterdir():
            file.unlink()
        (folder / "h").rmdir()
        folder.rmdir()


def test_haproxy__that_ray_brings_along_runs_here():
    assert haproxy.find() is not None
