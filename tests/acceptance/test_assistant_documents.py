"""spec/assistant.md §30, lines 83 to 91: a person's documents, through the doors, by the real model."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runtime.documents import library as libraries
from runtime.documents.formats import FORMATS
from runtime.documents.reading import DocumentReader
from runtime.ids import library_entity
from runtime.implementer.sandbox import Sandbox
from runtime.index.embedder import Embedder, choose_embedder, for_passages
from runtime.privacy.export import export
from tests.acceptance.library import ADMIN, ANN, BOB, DEMO, Documents, documents
from tests.unit.documents.made_files import docx, paragraph, pdf

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

FACT = "The lighthouse of Nowa Latarnia was painted green in 1931."
QUESTION = "What colour was the lighthouse painted?"
FILLER = "The committee discussed the budget of the following year at some length. " * 8


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = Path(os.environ.get("MODEL_CACHE_DIR") or tmp_path_factory.mktemp("models"))
    return for_passages(choose_embedder(folder))


@pytest.fixture
async def made(tmp_path: Path, embedder: Embedder) -> AsyncIterator[Documents]:
    async with documents(tmp_path, embedder) as opened:
        yield opened


def content_of(ending: str) -> bytes:
    match ending:
        case ".pdf":
            return pdf([FACT])
        case ".docx":
            return docx(paragraph(FACT))
        case ".html":
            return f"<html><body><p>{FACT}</p><script>var x = 1</script></body></html>".encode()
        case ".json":
            return json.dumps({"town": {"fact": FACT}}).encode()
        case _:
            return f"{FACT}\n{ending}\n".encode()


async def test_83__all_fourteen_formats_are_accepted_and_others_are_told_which_are(made: Documents) -> None:
    assert len(FORMATS) == 14
    for ending in FORMATS:
        item = await made.added(ANN, f"notes{ending}", content_of(ending))
        assert (item["status"], item["reason"]) == ("indexed", None), item
    found = {hit["filename"] for hit in await made.search(ANN, QUESTION, top_k=14)}
    assert found == {f"notes{ending}" for ending in FORMATS}

    refused = await made.upload(ANN, "setup.exe", b"MZ\x90\0")

    assert refused.status_code == 400
    assert all(ending in json.dumps(refused.json()) for ending in FORMATS)


async def test_84__who_has_no_full_access_and_what_is_too_large_is_refused(made: Documents) -> None:
    demo = await made.upload(DEMO, "a.txt", b"A text.")
    large = await made.upload(ANN, "a.txt", b"x" * 20_000_001)
    huge = await made.upload(ANN, "a.txt", b"x" * 21_000_000)

    assert demo.status_code == 403
    assert "/subscribe" in json.dumps(demo.json())
    assert (large.status_code, huge.status_code) == (413, 413)
    assert await made.items(ANN) == []


async def test_85__a_fact_on_the_last_page_of_fifty_is_found(made: Documents) -> None:
    await made.added(ANN, "report.pdf", pdf([*([FILLER] * 49), FACT]))

    best = (await made.search(ANN, QUESTION))[0]

    assert "painted green" in best["content"]
    # A page this short goes with the end of the one before it.
    assert (best["filename"], best["page"]) in (("report.pdf", 49), ("report.pdf", 50))


async def test_a_fact_at_the_end_of_a_long_passage__is_read(made: Documents) -> None:
    await made.added(ANN, "town.txt", ((FILLER * 2)[:780] + " " + FACT).encode())
    without = await made.search(ANN, FILLER[:100], threshold=0)
    assert len(without) == 1, "it is one passage"

    found = await made.search(ANN, QUESTION, threshold=0)

    assert found[0]["cosine"] > 0.3


async def test_86__text_without_punctuation_is_cut(made: Documents) -> None:
    item = await made.added(ANN, "long.txt", ("word " * 1000).encode())
    hanging = await made.added(ANN, "hanging.txt", ("Begin here. " + "x" * 3000 + "\n").encode())

    assert item["status"] == hanging["status"] == "indexed"
    assert item["chunk_count"] >= 6
    assert all(len(hit["content"]) <= 1000 for hit in await made.search(ANN, "word", threshold=0, top_k=50))


async def test_87__a_note_of_twenty_characters_is_one_chunk(made: Documents) -> None:
    assert (await made.added(ANN, "note.txt", b"Call Ewa at noon now"))["chunk_count"] == 1


async def test_88__status_goes_from_pending_to_indexed_and_a_broken_pdf_fails(made: Documents) -> None:
    answer = await made.upload(ANN, "report.pdf", pdf([FILLER] * 3))
    assert answer.json()["status"] == "pending"
    seen = {answer.json()["status"]}
    while "indexed" not in seen:
        seen.add((await made.item(ANN, answer.json()["item_id"]))["status"])
    assert seen <= {"pending", "processing", "indexed"}

    broken = await made.added(ANN, "broken.pdf", b"%PDF-1.7\n" + b"\xff\x00garbage" * 50)

    assert (broken["status"], broken["chunk_count"]) == ("failed", 0)
    assert "broken.pdf" in broken["reason"]


async def test_89__a_keyword_adds_five_hundredths_and_what_is_far_is_absent(made: Documents) -> None:
    await made.added(ANN, "town.txt", FACT.encode())
    await made.added(ANN, "cooking.txt", b"Whisk two eggs with sugar until the mixture is pale and fluffy.")

    found = await made.search(ANN, QUESTION)

    assert [hit["filename"] for hit in found] == ["town.txt"]
    hit = found[0]
    # "lighthouse", "painted", "was", "the"
    assert hit["keyword_matches"] == 4
    assert hit["similarity_score"] == pytest.approx(min(1.0, hit["cosine"] + 0.05 * 4), abs=1e-3)
    assert all(other["cosine"] >= 0.3 for other in found)
    exact = (await made.search(ANN, FACT))[0]
    assert exact["similarity_score"] == 1.0


async def test_90__what_is_deleted_is_gone_and_anothers_is_as_nothing(made: Documents) -> None:
    item = await made.added(ANN, "town.txt", FACT.encode())
    assert made.blobs() == 1

    foreign, unknown = await made.delete(BOB, item["id"]), await made.delete(BOB, "no-such-id")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["error"]["message"] == unknown.json()["error"]["message"]
    assert len(await made.search(ANN, QUESTION)) == 1

    assert (await made.delete(ANN, item["id"])).json()["success"] is True
    assert await made.search(ANN, QUESTION) == []
    assert await made.items(ANN) == []
    assert (await made.delete(ANN, item["id"])).status_code == 404
    await made.until(lambda: made.blobs() == 0)


async def test_91__the_same_file_twice_is_one_document(made: Documents) -> None:
    first = await made.added(ANN, "town.txt", FACT.encode())
    again = await made.upload(ANN, "copy of town.txt", FACT.encode())

    assert again.json()["item_id"] == first["id"]
    assert [item["filename"] for item in await made.items(ANN)] == ["town.txt"]


async def test_quota__of_documents_and_of_bytes_is_told(made: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "DOCUMENTS_MAX", 2)
    await made.added(ANN, "a.txt", b"The first of them.")
    await made.added(ANN, "b.txt", b"The second of them.")
    third = await made.upload(ANN, "c.txt", b"The third of them.")
    monkeypatch.setattr(libraries, "BYTES_MAX", 40)
    monkeypatch.setattr(libraries, "DOCUMENTS_MAX", 200)
    large = await made.upload(ANN, "d.txt", b"The fourth of them.")

    assert third.status_code == large.status_code == 409
    assert "2 are allowed" in third.json()["error"]["message"]
    assert len(await made.items(ANN)) == 2


async def test_nobody__finds_or_sees_anothers_document_but_those_for_everybody(made: Documents) -> None:
    await made.added(ANN, "town.txt", FACT.encode())
    assert await made.search(BOB, QUESTION, threshold=0) == []
    assert await made.items(BOB) == []

    refused = await made.upload(ANN, "all.txt", FACT.encode(), scope="global")
    shared = await made.added(ADMIN, "all.txt", FACT.encode(), scope="global")

    assert refused.status_code == 403
    assert [(hit["filename"], hit["scope"]) for hit in await made.search(BOB, QUESTION)] == [("all.txt", "global")]
    assert (await made.delete(BOB, shared["id"])).status_code == 404
    assert (await made.delete(ADMIN, shared["id"])).status_code == 200
    assert await made.search(BOB, QUESTION) == []


async def test_documents__outlive_their_host_and_a_lost_index_is_read_again(made: Documents) -> None:
    await made.added(ANN, "town.txt", FACT.encode())
    await made.restart()
    assert len(await made.search(ANN, QUESTION)) == 1

    for file in (made.settings.data_dir / "index").iterdir():
        file.unlink()
    await made.restart()

    assert [hit["filename"] for hit in await made.search(ANN, QUESTION)] == ["town.txt"]


async def test_an_upload__that_a_crash_cut_off_is_read_by_the_next_process(made: Documents) -> None:
    answer = await made.upload(ANN, "report.pdf", pdf([FACT]))
    await made.restart()

    item = await made.added(ANN, "report.pdf", pdf([FACT]))

    assert (item["id"], item["status"]) == (answer.json()["item_id"], "indexed")


async def test_a_document__that_cannot_be_read_now_holds_up_nobody_and_fails_at_last(
    made: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "RETRY_S", 0.2)
    monkeypatch.setattr(libraries, "TRIES_MAX", 10)
    made.reader = DocumentReader(Sandbox(bwrap="no-such-program"))
    await made.restart()
    waiting = (await made.upload(ANN, "report.pdf", pdf([FACT]))).json()["item_id"]

    behind = await made.added(ANN, "town.txt", FACT.encode())
    assert (behind["status"], (await made.item(ANN, waiting))["status"]) == ("indexed", "processing")
    failed = await made.added(ANN, "report.pdf", pdf([FACT]))
    assert (failed["id"], failed["status"]) == (waiting, "failed")
    assert "bubblewrap is not installed" in failed["reason"]

    made.reader = DocumentReader(Sandbox())
    await made.restart()
    assert (await made.added(ANN, "report.pdf", pdf([FACT])))["status"] == "indexed"


async def test_a_person__takes_the_list_of_documents_out_and_is_erased_with_them(made: Documents) -> None:
    await made.added(ANN, "town.txt", FACT.encode())
    await made.added(BOB, "town.txt", FACT.encode())
    await made.until(lambda: len(os.listdir(made.settings.data_dir / "index")) == 2)
    (made.settings.data_dir / "index" / "library-ann.index.0a1b.tmp").write_bytes(b"left by a killed process")
    at = datetime(2026, 11, 29, tzinfo=UTC)
    pieces = [piece async for piece in export(ANN, made.store.books, made.store.journal, at)]
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        (told,) = json.loads(archive.read("documents.json"))
    assert (told["filename"], told["status"], told["size_bytes"]) == ("town.txt", "indexed", len(FACT))

    await made.store.books.delete_person(ANN, 10**15)
    made.store.erasing.rest = timedelta(0)
    while not await made.store.erase_due():
        await made.host._look_after()

    assert made.blobs() == 1
    assert os.listdir(made.settings.data_dir / "index") == ["library-bob.index"]
    assert (await made.store.journal.load(library_entity(ANN))).head is None
    assert [hit["filename"] for hit in await made.search(BOB, QUESTION)] == ["town.txt"]


async def test_names__are_labels_and_reach_no_file(made: Documents, tmp_path: Path) -> None:
    item = await made.added(ANN, "../../../etc/passwd\u202e.txt", FACT.encode())

    assert item["filename"] == "passwd.txt"
    assert [path for path in os.listdir(tmp_path) if "passwd" in path] == []


@pytest.mark.parametrize("body", [{"query": ""}, {"query": "x", "top_k": 0}, {"query": "x", "threshold": -1}])
async def test_search__names_what_is_wrong(made: Documents, body: dict[str, object]) -> None:
    answer = await made.http.post("/api/v1/rag/search", json=body, headers={"authorization": "Bearer ann-token"})

    assert answer.status_code == 400


async def test_upload__that_is_no_form_is_refused(made: Documents) -> None:
    headers = {"authorization": "Bearer ann-token"}
    for content, kind in [
        (b"{}", "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"nothing", "multipart/form-data"),
        (b"", "text/plain"),
    ]:
        answer = await made.http.post("/api/v1/rag/upload", content=content, headers={**headers, "content-type": kind})
        assert answer.status_code == 400, (kind, answer.text)
