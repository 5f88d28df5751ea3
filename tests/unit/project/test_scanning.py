"""What is found in a tree without running any of it."""

import pytest

from runtime.project.scanning import REQUIRED_FILES, compose_faults, missing_files, scan, secrets_in

KEY = "sk-" + "a1B2c3D4e5F6g7H8i9J0"
COMPLETE = dict.fromkeys((*REQUIRED_FILES, "tests/test_a.py"), b"x")


def test_secrets__are_named_by_file_and_line_and_kind_and_never_shown() -> None:
    files = {"src/b.py": f"x = 1\ny = '{KEY}'\n".encode(), "a.pem": b"-----BEGIN RSA PRIVATE KEY-----\n"}
    found = secrets_in(files)
    assert found == ["a.pem:1 looks like a private key", "src/b.py:2 looks like a model provider's key"]
    assert not any(KEY in finding for finding in found)


@pytest.mark.parametrize(
    "text",
    ["sk-your-openai-api-key-goes-here-1", "sk-" + "x" * 30, "AKIAIOSFODNN7EXAMPLE", "ask-a-question-and-see-what-9"],
)
def test_placeholders__are_no_secrets(text: str) -> None:
    assert secrets_in({".env.example": text.encode()}) == []


def test_scan__says_what_is_wrong_and_how_much_was_looked_at() -> None:
    assert all(result.passed for result in scan(COMPLETE))
    red = scan({**COMPLETE, "a.py": KEY.encode(), "TODO.md": b"", "docker-compose.yml": b"services: ["})
    assert [(result.passed, result.output) for result in red] == [
        (False, "a.py:1 looks like a model provider's key"),
        (False, "TODO.md is missing or empty"),
        (False, "docker-compose.yml: it is not YAML at line 1"),
    ]


def test_missing_files__asks_for_the_four_documents_and_tests() -> None:
    assert missing_files(list(COMPLETE)) == []
    assert missing_files(["README.md"], before_last=True) == [
        "docs/requirements.md", "docs/architecture.md", "docs/api_documentation.md", "TODO.md", ".gitignore", "tests/",
    ]  # fmt: skip
    assert "docs/deployment_guide.md" in missing_files([])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"services:\n  web: {image: nginx}\n  app: {build: .}\n", ""),
        (b"services: {}", "it names no services"),
        (b"- a", "it names no services"),
        (b"services: {web: {ports: [80]}}", "the service web has neither an image nor a build"),
        (b"\xff\xfe\x00", "it is not YAML"),
    ],
)
def test_compose_file__is_read_as_yaml_and_in_its_outline(text: bytes, fault: str) -> None:
    assert compose_faults({"deploy/compose.prod.yaml": text}) == (
        [f"deploy/compose.prod.yaml: {fault}"] if fault else []
    )
