"""A node with an entity host is gone at once, with all its processes: its entities live elsewhere soon after."""

import signal
import time
from pathlib import Path

import pytest

from runtime.ids import PARTITION_COUNT
from tests.chaos import diary, verdict
from tests.cluster.loads import drain, read_all, start_load, wait_until_answered
from tests.cluster.nodes import HEAD, WORKER, two_nodes
from tests.cluster.seen import Seen, is_on_both

AFTER_DETECTION_S_MAX = 10.0
SEED = 3
WARM = 300


@pytest.mark.alone
def test_lost_node__leaves_every_entity_reachable_ten_seconds_after_ray_knows(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as nodes:
        # given two nodes with hosts on both, all entities of the plan in memory, and a load on them
        nodes.start_head()
        seen = Seen(nodes.run_python(HEAD, "-m", "tests.cluster.observer"))
        seen.wait_for("the first node serves", "partitions", lambda hosts: sum(hosts.values()) == PARTITION_COUNT, 60)
        nodes.start_worker()
        seen.wait_for("both nodes have partitions", "places", is_on_both, 60)
        path = tmp_path / "diary"
        load = start_load(nodes, HEAD, path, SEED)
        wait_until_answered([path], WARM)

        # when every process of one node is killed
        assert nodes.signal(WORKER, signal.SIGKILL) > 2
        lost_at = time.time()
        seen.say("reach")

        # then all entities do durable turns again within Ray's own detection time and ten seconds
        dead = seen.wait_for("Ray calls the node dead", "alive", lambda alive: not alive[WORKER], 60, lost_at)
        reached = seen.wait_for("every entity answers", "reached", lambda number: True, 60, lost_at)
        detected_s, reached_s = dead["at"] - lost_at, reached["at"] - lost_at
        print(f"detected after {detected_s:.1f} s, all reachable after {reached_s:.1f} s")
        assert reached_s <= detected_s + AFTER_DETECTION_S_MAX
        drain(load)
        told = diary.read(path)
        assert list(verdict.messages({SEED: told}, read_all(nodes, {SEED: path}))) == []
