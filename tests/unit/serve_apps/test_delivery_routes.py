"""The doors of packages, of links to them, and of repositories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest

from runtime.errors import NotFoundError
from runtime.ids import BlobId
from runtime.project.links import Link, make_link
from runtime.tokens import token_hash
from serve_apps import api_routes
from tests.unit.serve_apps.conftest import FakeSystem

KEY = b"k" * 32


@pytest.fixture
def ready(system: FakeSystem, names: SimpleNamespace) -> SimpleNamespace:
    """Ann's project, with a package."""
    system.entities.views[names.project] = replace(
        system.entities.views[names.project], package=names.package_view, bundle=BlobId("b" * 64)
    )
    return names


@pytest.fixture
async def signing(system: FakeSystem) -> httpx.AsyncClient:
    """The API with a known key, asked without a token."""
    app = api_routes.create_app(system, operator_sha256=token_hash("operator-token"), link_key=KEY)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://builder.example:81")


def link(names: SimpleNamespace, hours: float = 1.0) -> Link:
    return make_link(KEY, names.project, names.package_view.sha256, datetime.now(UTC), timedelta(hours=hours))


async def test_link__downloads_without_a_token_until_it_expires(
    signing: httpx.AsyncClient, ready: SimpleNamespace
) -> None:
    made = await signing.post(f"/api/v1/projects/{ready.project}/link", headers={"authorization": "Bearer ann-token"})
    assert made.status_code == 201
    told = made.json()
    assert told["url"].startswith("http://builder.example:81/api/v1/downloads/")
    assert told["sha256"] == ready.package_view.sha256
    left = datetime.fromisoformat(told["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23.9) < left <= timedelta(hours=24)
    fetched = await signing.get(told["url"])
    assert (fetched.status_code, fetched.content) == (200, ready.package)
    assert fetched.headers["x-sha256"] == ready.package_view.sha256
    assert "no-store" in fetched.headers["cache-control"]


async def test_link__after_its_moment_is_410_with_what_to_do(
    signing: httpx.AsyncClient, ready: SimpleNamespace
) -> None:
    answer = await signing.get(link(ready, hours=-0.01).path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "expired")
    assert "--link" in answer.json()["error"]["next"]


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "0" * 64},
        {"expires_s": 99_999_999_999},
        {"sha256": "d" * 64},
        {"project": "22222222-2222-4222-8222-222222222222"},
        {"project": "x"},
    ],
)
async def test_link__that_was_tampered_with_is_403_whatever_it_names(
    signing: httpx.AsyncClient, ready: SimpleNamespace, change: dict[str, object]
) -> None:
    answer = await signing.get(replace(link(ready), **change).path)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    expires = link(ready).path.replace(f"/{link(ready).expires_s}/", "/soon/")
    assert (await signing.get(expires)).status_code == 403


async def test_link__to_a_package_that_is_gone_is_410(
    signing: httpx.AsyncClient, system: FakeSystem, ready: SimpleNamespace
) -> None:
    async def removed(blob: str) -> bytes:
        raise NotFoundError("There is no file.")

    system.ledger.get_blob = removed  # type: ignore[method-assign]
    assert (await signing.get(link(ready).path)).status_code == 410
    system.entities.views[ready.project] = replace(system.entities.views[ready.project], package=None)
    assert (await signing.get(link(ready).path)).status_code == 410


@pytest.mark.parametrize(("method", "what"), [("GET", "package"), ("POST", "link"), ("GET", "repository")])
async def test_delivery__of_anothers_project_is_404_and_without_a_token_401(
    door: httpx.AsyncClient, names: SimpleNamespace, method: str, what: str
) -> None:
    assert (await door.request(method, f"/api/v1/projects/{names.bobs}/{what}")).status_code == 404
    asked = await door.request(method, f"/api/v1/projects/{names.project}/{what}", headers={"authorization": ""})
    assert asked.status_code == 401
    assert (await door.request(method, f"/api/v1/projects/{names.project}/{what}")).status_code == 409


async def test_repository__is_the_newest_bundle(door: httpx.AsyncClient, ready: SimpleNamespace) -> None:
    answer = await door.get(f"/api/v1/projects/{ready.project}/repository")
    assert (answer.status_code, answer.content) == (200, ready.package)
    assert answer.headers["content-disposition"] == 'attachment; filename="n-app.bundle"'
    shown = (await door.get(f"/api/v1/projects/{ready.project}")).json()
    assert shown["repository_url"] == f"/api/v1/projects/{ready.project}/repository"
