"""What the sandbox promises, proved by trying to break out of it. Needs bubblewrap."""

import asyncio
import errno
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from runtime.errors import SandboxUnavailableError
from runtime.implementer.cgroup import Cgroup
from runtime.implementer.confined import NICENESS
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.scratch import remove_tree
from runtime.implementer.work import CommandResult, Limits

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

MIB = 1 << 20


@pytest.fixture
async def workdir(tmp_path: Path) -> AsyncIterator[Path]:
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    await remove_tree(folder)


async def run(command: str, workdir: Path, **limits: float) -> CommandResult:
    return await Sandbox().run(command, workdir=workdir, limits=Limits(**limits))  # type: ignore[arg-type]


async def run_python(code: str, workdir: Path, **limits: float) -> CommandResult:
    (workdir / "program.py").write_text(code)
    return await run("python program.py", workdir, **limits)


def processes_with(word: str) -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline"]) if word in (process.info["cmdline"] or [])]


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def owner(path: str | Path) -> int:
    return os.stat(path).st_uid


def control_groups() -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob(f"masterbuilder-{os.getpid()}-*") if path.is_dir()]


async def test_probe__passes_where_bubblewrap_works() -> None:
    await Sandbox().probe()


async def test_sandbox__without_bubblewrap_says_how_to_get_it_and_runs_nothing(workdir: Path) -> None:
    sandbox = Sandbox(bwrap="no-such-bwrap")
    with pytest.raises(SandboxUnavailableError, match="apt-get install bubblewrap"):
        await sandbox.probe()
    with pytest.raises(SandboxUnavailableError, match="apt-get install bubblewrap"):
        await sandbox.run("touch ran", workdir=workdir, limits=Limits())
    assert not (workdir / "ran").exists()


async def test_sandbox__that_bubblewrap_cannot_set_up_runs_nothing(workdir: Path) -> None:
    # given a view that cannot be made
    missing = workdir / "missing"
    # when
    with pytest.raises(SandboxUnavailableError, match="missing"):
        await Sandbox().run("touch ran", workdir=workdir, limits=Limits(), read_only=[missing])
    # then
    assert not (workdir / "ran").exists()


async def test_sandbox__is_not_fooled_by_a_command_that_talks_like_bubblewrap(workdir: Path) -> None:
    result = await run("echo 'bwrap: no'; kill -9 $$", workdir)
    assert (result.exit_status, result.output) == (137, "bwrap: no\n")


async def test_run__passes_output_and_exit_status_through(workdir: Path) -> None:
    result = await run("echo out; echo err >&2; exit 7", workdir)
    assert (result.exit_status, result.output, result.timed_out, result.passed) == (7, "out\nerr\n", False, False)
    assert (await run("true", workdir)).passed


async def test_run__comes_after_what_people_wait_for(workdir: Path) -> None:
    ran = await run_python("import os; print(os.nice(0))", workdir)
    assert int(ran.output) >= NICENESS


async def test_run__is_bounded_and_the_first_to_go_when_memory_is_short(workdir: Path) -> None:
    command = "cat /proc/self/limits /proc/self/oom_score_adj"
    result = await run(command, workdir, cpu_s=7, process_count=33, file_size_bytes=5 * MIB)
    *lines, to_go = result.output.splitlines()
    bounds = {line[:25].strip(): line[25:].split()[:2] for line in lines}
    assert bounds["Max cpu time"] == ["7", "7"]
    assert bounds["Max processes"] == ["33", "33"]
    assert bounds["Max file size"] == [str(5 * MIB)] * 2
    assert bounds["Max core file size"] == ["0", "0"]
    assert to_go == "1000"


async def test_run__has_this_python_under_both_names(workdir: Path) -> None:
    result = await run("python -V && python3 -V && python -c 'import ssl, sqlite3, ctypes'", workdir)
    version = f"Python {sys.version.split()[0]}\n"
    assert result.output == version * 2


async def test_run__works_on_the_given_folder_whoever_owned_it(workdir: Path) -> None:
    (workdir / "old").mkdir(mode=0o700)
    (workdir / "old" / "file").write_text("1")
    result = await run("pwd; cat old/file; echo 2 > old/file; echo 3 > new", workdir)
    assert result.output == "/work\n1"
    assert (workdir / "new").read_text() == "3\n"
    assert (workdir / "old" / "file").read_text() == "2\n"


async def test_run__shows_read_only_folders_at_their_own_path(workdir: Path, tmp_path: Path) -> None:
    shown = tmp_path / "closed" / "shown"
    shown.mkdir(parents=True)
    (shown / "file").write_text("seen")
    (tmp_path / "closed" / "beside").write_text("secret")
    shown.parent.chmod(0o700)
    command = f"cat {shown}/file; ls {shown.parent}; touch {shown}/x"
    result = await Sandbox().run(command, workdir=workdir, limits=Limits(), read_only=[shown])
    assert result.output.startswith("seenshown\n")
    assert "Read-only" in result.output


async def test_run__has_no_network(workdir: Path) -> None:
    # given a server on this machine's loopback
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        # when
        result = await run_python(
            f"""
import socket
for address in [("127.0.0.1", {port}), ("1.1.1.1", 53)]:
    try:
        socket.create_connection(address, timeout=5)
        print("connected")
    except OSError as error:
        print("refused")
print(open("/proc/net/dev").read().count(":"), "interface")
""",
            workdir,
        )
    # then
    assert result.output == "refused\nrefused\n1 interface\n"


async def test_run__has_a_loopback_of_its_own(workdir: Path) -> None:
    code = """
import socket
with socket.create_server(("localhost", 8000)):
    socket.create_connection(("localhost", 8000)).close()
"""
    assert (await run_python(code, workdir)).passed


async def test_run__leaks_no_environment(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = await Sandbox().run(
        "env; cat /proc/*/environ", workdir=workdir, limits=Limits(), env={"PIP_NO_INDEX": "1"}
    )
    assert "sk-secret" not in result.output
    names = {line.partition("=")[0] for line in result.output.split("\n") if "=" in line and "\0" not in line}
    assert names <= {"PATH", "HOME", "TMPDIR", "LANG", "USER", "LOGNAME", "TERM", "PWD", "OLDPWD", "SHLVL", "_",
                     "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PIP_NO_INDEX"}  # fmt: skip
    assert "PIP_NO_INDEX=1" in result.output


async def test_run__cannot_read_the_hosts_files(workdir: Path, tmp_path: Path) -> None:
    # given a secret beside the work folder, readable by anyone on the host
    secret = tmp_path / "secrets.json"
    secret.write_text("top-secret")
    secret.chmod(0o644)
    # when
    result = await run(
        f"cat {secret} /etc/shadow /proc/1/root{secret} /proc/1/root/etc/shadow /work/../{secret} 2>&1; "
        f"ls -d {tmp_path} /home /var /srv /mnt /sys /boot /run /etc/ssh /root/.ssh 2>/dev/null; echo end",
        workdir,
    )
    # then
    *refusals, last = result.output.splitlines()
    assert len(refusals) == 5
    assert all(line.endswith(("No such file or directory", "Permission denied")) for line in refusals)
    assert last == "end"


async def test_run__sees_of_a_home_folder_only_the_python_in_it(workdir: Path) -> None:
    result = await run_python(
        """
import os, sys
prefix = os.path.realpath(sys.base_prefix)
seen = [os.path.join(folder, name) for folder, folders, files in os.walk("/") for name in [*folders, *files]
        if not folder.startswith(("/proc", "/usr", "/lib", "/etc", "/dev", "/opt", prefix))]
print([path for path in seen if path.startswith(("/root/", "/home/")) and not prefix.startswith(path)])
""",
        workdir,
    )
    assert result.output == "[]\n"


async def test_run__tells_no_path_of_the_host_on_its_command_line(workdir: Path) -> None:
    result = await run("cat /proc/1/cmdline | tr '\\0' ' '", workdir)
    assert "bwrap" in result.output
    assert str(workdir) not in result.output


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_run__inherits_no_descriptor(workdir: Path, loop: str) -> None:
    start = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    with (workdir / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        result = await asyncio.to_thread(lambda: start(run("ls /proc/self/fd | wc -l", workdir)))
    assert result.output.strip() == "4"  # 0, 1, 2 and the listing's own


async def test_run__cannot_write_outside_its_folder(workdir: Path) -> None:
    result = await run(
        "for d in / /usr /usr/bin /etc /dev /opt /proc/sys/kernel /root /opt/python/bin "
        "$(python -c 'import sys; print(sys.prefix)'); do touch $d/x 2>/dev/null && echo wrote $d; done; "
        "mount -t tmpfs x /mnt 2>/dev/null && echo mounted; echo end",
        workdir,
    )
    assert result.output == "end\n"


async def test_run__is_an_unprivileged_user_and_a_new_one_each_time(workdir: Path) -> None:
    results = [await run("id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status", workdir) for _ in range(2)]
    uids = [int(result.output.split()[0]) for result in results]
    assert 0 not in uids
    assert "CapEff:\t0000000000000000" in results[0].output
    assert "NoNewPrivs:\t1" in results[0].output
    if os.geteuid() == 0:
        assert uids[0] != uids[1]
        assert "CapBnd:\t0000000000000000" in results[0].output
        assert owner(workdir) == uids[1]


async def test_run__cannot_see_trace_or_kill_the_hosts_processes(workdir: Path) -> None:
    # given a process of the host, this one, and as root also bwrap's own (else it is of the same user as the command)
    traced = 1 if os.geteuid() == 0 else os.getppid()
    victim = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        # when
        result = await run_python(
            f"""
import ctypes, os, signal
print(len([p for p in os.listdir("/proc") if p.isdigit()]) < 5)
for pid in range(2, 100_000):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
            print("killed", pid)
        except (ProcessLookupError, PermissionError):
            pass
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16
print([libc.ptrace(PTRACE_ATTACH, pid, 0, 0) for pid in ({victim.pid}, {os.getpid()}, {traced})])
""",
            workdir,
            process_count=64,
        )
        # then
        assert result.output == "True\n[-1, -1, -1]\n"
        assert victim.returncode is None
        assert psutil.pid_exists(victim.pid)
    finally:
        victim.kill()
        await victim.wait()


async def test_run__stops_an_endless_loop_and_everything_it_started(workdir: Path) -> None:
    result = await run("echo begun; sleep 86399 & (setsid sleep 86399 &) ; while :; do :; done", workdir, wall_s=1)
    assert result.timed_out
    assert not result.passed
    assert result.output == "begun\n"
    assert processes_with("86399") == []


async def test_run__stops_what_burns_its_processor_time(workdir: Path) -> None:
    result = await run("exec python -c 'while True: pass'", workdir, cpu_s=1, wall_s=60)
    assert not result.timed_out
    assert result.exit_status == 128 + 9


async def test_run__leaves_no_background_process_behind(workdir: Path) -> None:
    result = await run("(setsid sleep 86398 > /dev/null 2>&1 &); sleep 86398 & echo done", workdir)
    assert (result.exit_status, result.output) == (0, "done\n")
    assert processes_with("86398") == []


async def test_run__leaves_no_control_group_behind(workdir: Path) -> None:
    await run("sleep 600 & exit 1", workdir)
    await run("sleep 600", workdir, wall_s=0.3)
    assert control_groups() == []


async def test_run__ends_when_cancelled(workdir: Path) -> None:
    # given
    task = asyncio.create_task(run("touch begun; sleep 86397 & sleep 86397", workdir))
    await asyncio.to_thread(wait_until, lambda: (workdir / "begun").exists() and bool(processes_with("86397")))
    # when
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # then
    assert processes_with("86397") == []
    assert control_groups() == []


@pytest.fixture(params=["cgroup", "rlimits"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with control groups, where they can be made, and without them."""
    if request.param == "rlimits":
        without: Callable[..., None] = lambda **_: None  # noqa: E731
        monkeypatch.setattr(Cgroup, "make", without)
        return "rlimits"
    group = Cgroup.make(memory_bytes=MIB, process_count=1)
    if group is None:
        pytest.skip("no writable cgroup with memory and pids controllers here")
    group.remove()
    return "cgroup"


FORK_BOMB = """
import os, sys, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
except OSError:
    pass
print(count)
"""


async def test_run__bounds_a_fork_bomb(workdir: Path, bounds: str) -> None:
    result = await run_python(FORK_BOMB, workdir, process_count=40, wall_s=30)
    assert 20 <= int(result.output) <= 40


async def test_run__bounds_a_fork_bomb_of_the_shell(workdir: Path, bounds: str) -> None:
    result = await run(":(){ :|:& };:; sleep 600", workdir, process_count=40, wall_s=1)
    assert not result.passed
    assert control_groups() == []


async def test_run__stops_a_memory_hog(workdir: Path, bounds: str) -> None:
    code = "hog = bytearray(1)\nfor _ in range(64): hog += bytes(16 << 20)\nprint('had it all')"
    result = await run_python(code, workdir, memory_bytes=256 * MIB)
    assert not result.passed
    assert "had it all" not in result.output


async def test_run__stops_memory_hogs_that_are_small_each(workdir: Path, bounds: str) -> None:
    if bounds == "rlimits":
        pytest.skip("rlimits bound each process, not their sum")
    code = """
import os
for _ in range(8):
    if os.fork() == 0:
        hog = bytes(range(256)) * (80 << 12)
        while True: pass
statuses = [os.wait()[1] for _ in range(4)]
print(statuses)
"""
    result = await run_python(code, workdir, memory_bytes=256 * MIB, wall_s=30)
    assert not result.timed_out
    assert "9" in result.output or result.exit_status == 137


async def test_run__ordinary_programs_fit_the_ordinary_limits(workdir: Path, bounds: str) -> None:
    code = """
import concurrent.futures, multiprocessing, sqlite3, subprocess, tempfile
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
with concurrent.futures.ThreadPoolExecutor(8) as threads:
    assert list(threads.map(abs, [-1])) == [1]
sqlite3.connect("x.db").execute("create table t (a)")
tempfile.NamedTemporaryFile().write(b"x")
"""
    result = await run_python(code, workdir)
    assert result.output == ""
    assert result.passed


async def test_run__cuts_giant_output_in_the_middle(workdir: Path) -> None:
    before = psutil.Process().memory_info().rss
    result = await run("echo first; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo last", workdir)
    assert result.passed
    assert result.output.startswith("first\n")
    assert result.output.endswith("\nlast\n")
    assert " bytes cut ...]" in result.output
    assert len(result.output) < (64 << 10) + 100
    assert psutil.Process().memory_info().rss - before < 100 * MIB


async def test_run__stops_a_giant_file(workdir: Path) -> None:
    result = await run("head -c 100000000 /dev/zero > big", workdir, file_size_bytes=MIB)
    assert not result.passed
    assert (workdir / "big").stat().st_size <= MIB


async def test_run__whose_disk_cannot_be_seen_is_stopped(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_facts(path: Path) -> os.statvfs_result:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "statvfs", no_facts)
    result = await run("sleep 60; echo survived", workdir)
    assert not result.passed
    assert not result.timed_out
    assert result.output == "\n[stopped: what it holds on disk cannot be seen: Input/output error]"


async def test_run__has_a_small_scratch_folder(workdir: Path) -> None:
    command = "for f in /tmp/a /dev/shm/a; do head -c 9000000 /dev/zero > $f; echo $?; done"
    result = await run(command, workdir, scratch_bytes=4 * MIB)
    assert result.output.count("No space left") == 2


async def test_run__can_be_cleaned_up_whatever_it_made(workdir: Path, tmp_path: Path) -> None:
    # given a folder too deep for Python's own walkers, an unreadable one, and a link out
    code = """
import os
os.mkdir("closed"); open("closed/x", "w"); os.chmod("closed", 0)
os.symlink("/etc/passwd", "link")
for _ in range(3000):
    os.mkdir("d" * 20); os.chdir("d" * 20)
"""
    assert (await run_python(code, workdir)).passed
    # when it is handed to the next run, and removed
    assert (await run("ls", workdir)).output == "closed\ndddddddddddddddddddd\nlink\nprogram.py\n"
    await remove_tree(workdir)
    # then
    assert os.listdir(tmp_path) == []
    assert owner("/etc/passwd") == 0


async def test_run__serves_several_at_once(workdir: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"w{n}" for n in range(4)]
    for folder in folders:
        folder.mkdir()
    results = await asyncio.gather(*(run("touch mine; ls", folder) for folder in folders))
    assert [result.output for result in results] == ["mine\n"] * 4


async def test_run__leaves_no_descriptor_open(workdir: Path) -> None:
    commands = ["true", "yes", "sleep 600 & yes", "exec 1>&- 2>&-; sleep 600"]
    await run("true", workdir)
    before = sorted(os.listdir("/proc/self/fd"))
    for command in commands:
        await run(command, workdir, wall_s=0.3)
    assert sorted(os.listdir("/proc/self/fd")) == before
