"""One owner's kept vectors on disk: sealed, bounded, and there after a kill."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.errors import StoreUnavailableError
from runtime.files import journal_of
from runtime.index.vector_file import VectorFile, vectors_file
from runtime.store.seal import Seal

SEAL = Seal(bytes(range(32)))
DAY_S = 86_400.0


def sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def vectors(*texts: str) -> dict[bytes, bytes]:
    return {sha(text): f"vector of {text}".encode() for text in texts}


def opened(folder: Path, owner: str = "ann", **more: object) -> VectorFile:
    return VectorFile(folder / vectors_file(owner), owner, SEAL, **more)  # type: ignore[arg-type]


def test_kept__is_found_by_whoever_opens_the_file_next(tmp_path: Path) -> None:
    opened(tmp_path).keep("m", vectors("a", "b"), "p1.index")
    found = opened(tmp_path).find("m", [sha("b"), sha("c"), sha("a")], "p1.index")
    assert found == vectors("a", "b")


def test_kept__is_of_one_embedder(tmp_path: Path) -> None:
    opened(tmp_path).keep("m", vectors("a"), "p1.index")
    assert opened(tmp_path).find("m@4", [sha("a")], "p1.index") == {}


def test_file__of_another_owner_gives_nothing_though_its_bytes_are_taken(tmp_path: Path) -> None:
    """Nor where it is put in the place of one's own: what is kept is bound to its owner."""
    opened(tmp_path).keep("m", vectors("a"), "p1.index")
    (tmp_path / vectors_file("bob")).write_bytes((tmp_path / vectors_file("ann")).read_bytes())
    assert opened(tmp_path, "bob").find("m", [sha("a")], "p1.index") == {}


def test_file__tells_neither_texts_nor_their_hashes_nor_vectors_and_is_the_services_alone(tmp_path: Path) -> None:
    opened(tmp_path).keep("m", vectors("secret"), "p1.index")
    file = tmp_path / vectors_file("ann")
    content = file.read_bytes()
    assert not [one for one in (sha("secret"), sha("secret")[:8], b"vector of") if one in content]
    assert file.stat().st_mode & 0o777 == 0o600


def test_looking__makes_no_file(tmp_path: Path) -> None:
    assert opened(tmp_path).find("m", [sha("a")], "p1.index") == {}
    opened(tmp_path).forget("p1.index")
    assert list(tmp_path.iterdir()) == []


def test_forgotten__is_what_the_index_was_the_last_to_use(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.keep("m", vectors("a", "b"), "p1.index")
    file.find("m", [sha("b")], "p2.index")
    file.forget("p1.index")
    assert file.find("m", [sha("a"), sha("b")], "p2.index") == vectors("b")
    file.forget("p2.index")
    assert file.find("m", [sha("b")], "p2.index") == {}


def test_size__is_bounded_and_the_longest_unused_go(tmp_path: Path) -> None:
    now_s = [0.0]
    file = opened(tmp_path, bytes_max=200_000, clock=lambda: now_s[0])
    file.keep("m", {sha("kept"): bytes(1000)}, "p1.index")
    for day in range(1, 60):
        now_s[0] = day * DAY_S
        assert file.find("m", [sha("kept")], "p1.index"), f"used yesterday, and gone on day {day}"
        file.keep("m", {sha(f"{day}-{number}"): bytes(1000) for number in range(20)}, "p1.index")
        assert (tmp_path / vectors_file("ann")).stat().st_size < 260_000
    assert file.find("m", [sha("59-0")], "p1.index")
    assert not file.find("m", [sha("1-0")], "p1.index")


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_file__that_is_damaged_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    file, path = opened(tmp_path), tmp_path / vectors_file("ann")
    file.keep("m", vectors("a"), "p1.index")
    path.write_bytes(damage)
    if damage:
        with pytest.raises(StoreUnavailableError):
            file.find("m", [sha("a")], "p1.index")
    assert file.find("m", [sha("a")], "p1.index") == {}
    file.keep("m", vectors("a"), "p1.index")
    assert file.find("m", [sha("a")], "p1.index") == vectors("a")


def test_row__that_was_altered_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    file, path = opened(tmp_path), tmp_path / vectors_file("ann")
    file.keep("m", vectors("a", "b"), "p1.index")
    content = bytearray(path.read_bytes())
    sealed = SEAL.mark(b"\0".join((b"ann", b"m", sha("a"))))
    place = content.index(sealed) + len(sealed) + len("p1.index") + 8
    content[place] ^= 1
    path.write_bytes(content)
    assert file.find("m", [sha("a"), sha("b")], "p1.index") == vectors("b")


def test_disk__that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file where the folder would be")
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        opened(tmp_path / "index").keep("m", vectors("a"), "p1.index")


def test_writers__side_by_side_lose_nothing(tmp_path: Path) -> None:
    def write(name: int) -> None:
        for number in range(20):
            opened(tmp_path).keep("m", vectors(f"{name}-{number}"), "p1.index")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [sha(f"{name}-{number}") for name in range(4) for number in range(20)]
    assert len(opened(tmp_path).find("m", every, "p1.index")) == 80


def test_kill__loses_nothing_that_was_said_to_be_kept(tmp_path: Path) -> None:
    """Ten times, wherever it is then; what is left beside the file is taken in by the next who opens it."""
    program = (
        "import sys; from pathlib import Path; from tests.unit.index.test_vector_file import opened, vectors\n"
        "file = opened(Path(sys.argv[1]))\n"
        "for number in range(int(sys.argv[2]), 10**9):\n"
        "    file.keep('m', vectors(*(f'{number}-{each}' for each in range(50))), 'p1.index')\n"
        "    print(number, flush=True)\n"
    )
    done = -1
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(done + 1)],
            stdout=subprocess.PIPE,
            env=os.environ,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout is not None
        for _ in range(5):
            done = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().split():
            done = int(line)
        process.wait()
        every = [sha(f"{number}-{each}") for number in range(done + 1) for each in range(50)]
        assert len(opened(tmp_path).find("m", every, "p1.index")) == len(every)
        # One that had not begun to change the file may lie there until the next writes.
        opened(tmp_path).keep("m", vectors("after"), "p1.index")
        assert not journal_of(tmp_path / vectors_file("ann")).exists()
