import json
import stat

import pytest
from key_world import key, wish

from runtime.errors import StoreUnavailableError, WorkLostError
from runtime.keys import log as pool_log
from runtime.keys.log import PoolLog
from runtime.keys.pool import Pool
from runtime.keys.window import WINDOW_S

NOW = 10_000.0
KEYS = [key("a", requests_per_minute=3), key("b")]


def opened(path, now=NOW, wall=50_000.0) -> tuple[Pool, PoolLog]:
    log = PoolLog(path, clock=lambda: now, wall=lambda: wall)
    pool = Pool("openai", cooldown_s=1, call_s_max=10, note=log.note)
    pool.set_keys(KEYS)
    log.open(pool)
    return pool, log


def use(pool, calls, now=NOW):
    for number in range(calls):
        pool.ask("s", number + 1, wish(model="m"), 100, now)
    for block in pool.tick(now)[0]:
        pool.returned(block.id, 1, 1, 0, now)


def room_of_a(pool, now=NOW):
    return pool._windows["a", "m"].room(now)[0]


def test_pool__is_what_it_was(tmp_path):
    pool, log = opened(tmp_path / "pool.log")
    use(pool, 4)
    log.flush()
    log.close()
    again, log = opened(tmp_path / "pool.log", NOW + 1)
    assert sorted(map(repr, again.notes())) == sorted(map(repr, pool.notes()))
    log.close()


def test_line__that_was_cut_off_counts_as_never_written(tmp_path):
    path = tmp_path / "pool.log"
    pool, log = opened(path)
    use(pool, 2)
    log.flush()
    kept = pool.notes()
    use(pool, 6)
    log.flush()
    log.close()
    path.write_bytes(path.read_bytes()[:-20])
    again, log = opened(path)
    assert sorted(map(repr, again.notes())) == sorted(map(repr, kept))
    log.close()


def test_file__is_private_written_anew_when_long_and_holds_no_key(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_log, "BYTES_MAX", 500)
    path = tmp_path / "pools" / "pool.log"
    pool, log = opened(path)
    for _ in range(50):
        use(pool, 2)
        log.flush()
        log.shorten(pool)
    assert path.stat().st_size < 3_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"sk-" not in path.read_bytes()
    log.close()
    again, log = opened(path)
    assert sorted(map(repr, again.notes())) == sorted(map(repr, pool.notes()))
    log.close()


def test_two_pools__never_have_the_same_file(tmp_path):
    _, log = opened(tmp_path / "pool.log")
    with pytest.raises(WorkLostError):
        opened(tmp_path / "pool.log")
    log.close()
    opened(tmp_path / "pool.log")[1].close()


@pytest.mark.parametrize(("uptime_s", "since_written_s", "rests_s"), [(20, 5, WINDOW_S - 5), (20, 500, WINDOW_S - 20)])
def test_machine_that_was_restarted__rests_limited_keys_for_what_may_be_left_of_their_minute(
    tmp_path, uptime_s, since_written_s, rests_s
):
    path = tmp_path / "pool.log"
    pool, log = opened(path)
    use(pool, 1)
    log.flush()
    log.close()
    path.write_bytes(path.read_bytes().replace(path.read_bytes().split(b"\n")[0], b"another boot"))
    pool, log = opened(path, uptime_s, path.stat().st_mtime + since_written_s)
    pool.ask("s", 1, wish(model="m"), 100, uptime_s)
    assert [block.key_id for block in pool.tick(uptime_s)[0]] == ["b"]
    assert room_of_a(pool, uptime_s + rests_s - 1) == 0
    assert room_of_a(pool, uptime_s + rests_s + 1) == 3
    log.close()


def test_machine_that_was_restarted_long_ago__rests_nothing(tmp_path):
    path = tmp_path / "pool.log"
    opened(path)[1].close()
    path.write_bytes(b"another boot\n")
    pool, log = opened(path, 5_000, path.stat().st_mtime + 500)
    use(pool, 1, 5_000)
    assert room_of_a(pool, 5_000) == 2
    log.close()


def test_full_disk__is_told_and_what_could_not_be_written_is_written_later(tmp_path, monkeypatch):
    path = tmp_path / "pool.log"
    pool, log = opened(path)
    use(pool, 1)
    write = pool_log.os.write
    monkeypatch.setattr(pool_log.os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(StoreUnavailableError):
        log.flush()
    monkeypatch.setattr(pool_log.os, "write", write)
    log.flush()
    log.close()
    again, log = opened(path)
    assert sorted(map(repr, again.notes())) == sorted(map(repr, pool.notes()))
    log.close()


def test_notes__are_plain_json(tmp_path):
    pool, log = opened(tmp_path / "pool.log")
    use(pool, 3)
    assert json.loads(json.dumps(pool.notes())) == [list(map(_plain, note)) for note in pool.notes()]
    log.close()


def _plain(value):
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
