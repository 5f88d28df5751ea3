"""What is asked of a forge: git's smart HTTP and GitHub's API, of a local server that speaks both."""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import BadInputError, GitHubError
from runtime.index.chunk import FILE_BYTES_MAX
from runtime.repositories.address import Address, Forges
from runtime.repositories.content import RepositoryContent
from runtime.repositories.git import BareRepository, Remote
from runtime.repositories.github import ForgeApi
from tests.forge import Answer, StubForge, stub_forge

ABOUT = "/repos/octocat/hello"


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[StubForge]:
    with stub_forge(tmp_path / "forge") as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    made.mkdir()
    return made


def address(forge: StubForge, name: str = "octocat/hello") -> Address:
    return Forges(forge.url, forge.url).address(f"https://github.com/{name}")


def remote(forge: StubForge, within_s: float = 60.0) -> Remote:
    return Remote(address(forge).clone_url, time.monotonic() + within_s)


async def test_tip__is_the_branchs_newest_commit_or_nothing(forge: StubForge, folder: Path) -> None:
    commit = forge.commit("octocat/hello", {"a.py": "x = 1\n"})
    forge.put("octocat/hello", "tag", "v1", commit)
    forge.put("octocat/hello", "update-ref", "refs/heads/sub/main", commit)

    assert await remote(forge).tip("main", folder) == commit
    assert await remote(forge).tip("v1", folder) is None
    assert await remote(forge).tip("ain", folder) is None


async def test_download__is_one_commit_without_history_and_without_what_is_too_large(
    forge: StubForge, folder: Path
) -> None:
    forge.commit("octocat/hello", {"old.py": "gone = 1\n"})
    commit = forge.commit(
        "octocat/hello", {"old.py": None, "a.py": "x = 1\n", "b.py": random_bytes(FILE_BYTES_MAX + 1, 1)}
    )

    pack = (await remote(forge).download("main", folder / "it", 10_000_000)).read_bytes()

    assert BareRepository(folder / "it").head() == commit
    assert len(pack) < 10_000
    repository = BareRepository.of_pack(folder / "copy", commit, iter([pack]))
    content = RepositoryContent.of(commit, repository)
    assert content.ids.keys() == {"a.py", "b.py"}
    assert content.read(["b.py"])["b.py"].skipped == "larger than 1 MiB"
    with repository.running("cat-file", "--batch-check") as (stdin, stdout):
        stdin.write(forge.put("octocat/hello", "rev-parse", "main~1:old.py", "main:a.py").encode() + b"\n")
        stdin.close()
        assert [line.split()[1] for line in stdout] == [b"missing", b"blob"]


async def test_download__runs_nothing_and_asks_for_nothing_that_the_repository_names(
    forge: StubForge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge.commit(
        "octocat/hello",
        {
            ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = {forge.url}/octocat/other.git\n',
            ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
            ".lfsconfig": f"[lfs]\n\turl = {forge.url}/lfs\n",
            "big.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n",
        },
    )
    monkeypatch.setenv("GIT_TRACE", str(folder / "trace"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.sshCommand=false' 'url.http://127.0.0.1:1/.insteadOf=http://'")

    await remote(forge).download("main", folder / "it", 10_000_000)

    assert {request.split()[1].partition("/info")[0].partition("/git-")[0] for request in forge.requests} == {
        "/octocat/hello.git"
    }
    assert not any("authorization" in {name.lower() for name in each} for each in forge.headers)
    assert not (folder / "trace").exists()
    assert os.listdir(folder) == ["it"]


async def test_download__that_grows_beyond_its_bound_is_ended(forge: StubForge, folder: Path) -> None:
    forge.commit("octocat/hello", {f"{number}.bin": random_bytes(900_000, number) for number in range(4)})

    with pytest.raises(BadInputError, match="more than 3 MB"):
        await remote(forge).download("main", folder / "it", 3_000_000)


async def test_download__that_takes_too_long_is_ended(forge: StubForge, folder: Path) -> None:
    forge.commit("octocat/hello", {"a.py": "x = 1\n"})
    forge.git_delay_s = 3.0
    began_s = time.monotonic()

    with pytest.raises(GitHubError, match="in time"):
        await remote(forge, within_s=0.5).download("main", folder / "it", 1_000_000)
    assert time.monotonic() - began_s < 2.5


async def test_redirect__is_not_followed_and_no_password_is_asked_for(forge: StubForge, folder: Path) -> None:
    forge.commit("octocat/hello", {"a.py": "x = 1\n"})
    refs = "/octocat/hello.git/info/refs"
    for answer in (
        Answer(302, {"location": f"{forge.url}/octocat/hello.git/info/refs?service=git-upload-pack&x=1"}),
        Answer(401, {"www-authenticate": 'Basic realm="x"'}),
        Answer(500),
    ):
        forge.answers[refs] = answer
        with pytest.raises(GitHubError) as caught:
            await remote(forge).tip("main", folder)
        assert str(folder) not in str(caught.value)


async def test_nobody_there__is_told(forge: StubForge, folder: Path) -> None:
    nobody = replace(address(forge).forge, url="http://127.0.0.1:1", api_url="http://127.0.0.1:1")
    absent = Address(forge=nobody, full_name="octocat/hello")

    with pytest.raises(GitHubError):
        await Remote(absent.clone_url, time.monotonic() + 30).tip("main", folder)
    with pytest.raises(GitHubError, match="did not answer"):
        await ForgeApi().describe(absent)


async def test_described__is_the_name_as_it_is_written_and_the_size(forge: StubForge) -> None:
    forge.commit("octocat/hello", {"a.py": "x = 1\n"}, branch="trunk")
    forge.sizes_kb["octocat/hello"] = 1234

    described = await ForgeApi().describe(address(forge, "OctoCat/HELLO"))

    assert described.address.full_name == "octocat/hello"
    assert (described.size_bytes, described.default_branch) == (1_234_000, "trunk")
    assert forge.headers[-1]["user-agent"] == "masterbuilder"
    assert "authorization" not in {name.lower() for name in forge.headers[-1]}


async def test_a_renamed_repository__is_found_where_it_is_now(forge: StubForge) -> None:
    forge.commit("octocat/hello", {"a.py": "x = 1\n"})
    forge.answers["/repos/octocat/old"] = Answer(301, {"location": f"{forge.url}/repos/octocat/hello"})

    assert (await ForgeApi().describe(address(forge, "octocat/old"))).address.full_name == "octocat/hello"


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer(404, {}, {"message": "Not Found"}), BadInputError, "no public repository"),
        (Answer(451, {}, {"message": "Repository access blocked"}), BadInputError, "no public repository"),
        (Answer(403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1796000000"}), GitHubError, "too often.*UTC"),
        (Answer(429), GitHubError, "too often.*some minutes"),
        (Answer(500), GitHubError, "status 500"),
        (Answer(200, {}, {"message": "hello"}), GitHubError, "not understood"),
        (Answer(200, {}, {"full_name": "../../etc", "size": 1}), GitHubError, "not understood"),
        (Answer(200, {}, {"full_name": "a/b", "size": -1}), GitHubError, "not understood"),
        (Answer(200, {}, "x" * (1 << 21)), GitHubError, "too long"),
        (Answer(301, {"location": "http://169.254.169.254/latest"}), GitHubError, "another service"),
        (Answer(301, {"location": "file:///etc/passwd"}), GitHubError, "another service"),
        (Answer(301, {"location": ABOUT}), GitHubError, "again and again"),
    ],
)
async def test_what_the_api_says_otherwise__is_told(
    forge: StubForge, answer: Answer, error: type[Exception], text: str
) -> None:
    forge.answers[ABOUT] = answer

    with pytest.raises(error, match=text):
        await ForgeApi().describe(address(forge))


def random_bytes(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)
