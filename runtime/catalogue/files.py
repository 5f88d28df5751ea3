"""Reads a file of models to import: YAML, JSON or CSV. Every error names the line and the field."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from runtime.catalogue.listing import ListedModel
from runtime.errors import BadInputError, TooLargeError

Form = Literal["yaml", "json", "csv"]
FILE_BYTES_MAX = 5 << 20
MODELS_MAX = 5_000
PROBLEMS_MAX = 5
CORRECT = "Correct the file and import it again; nothing was changed."


@dataclass(frozen=True, slots=True)
class _Row:
    """Texts and lists of texts, and the line each stands in: prices never pass through a binary fraction."""

    line: int
    values: Mapping[str, Any]
    lines: Mapping[str, int]


def models_in(text: str, form: Form) -> list[ListedModel]:
    """The rows of a list, or of a list called `models`. Raises BadInputError, TooLargeError."""
    if len(text.encode(errors="replace")) > FILE_BYTES_MAX:
        raise TooLargeError(f"The file is larger than {FILE_BYTES_MAX} bytes.", "Import it in parts.")
    rows = list(_csv_rows(text) if form == "csv" else _yaml_rows(_checked_json(text) if form == "json" else text))
    if not rows:
        raise BadInputError("The file holds no models.", CORRECT)
    if len(rows) > MODELS_MAX:
        raise TooLargeError(f"The file holds {len(rows)} models; at most {MODELS_MAX} go at once.", "Split it.")
    problems: list[str] = []
    models: list[ListedModel] = []
    for row in rows:
        try:
            models.append(ListedModel.model_validate(row.values))
        except ValidationError as error:
            problems += _problems(error, row)
    if problems:
        more = f"; and {len(problems) - PROBLEMS_MAX} more" if len(problems) > PROBLEMS_MAX else ""
        raise BadInputError(f"The file does not fit: {'; '.join(problems[:PROBLEMS_MAX])}{more}.", CORRECT)
    return models


def _problems(error: ValidationError, row: _Row) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(problem["loc"][0])[:60] if problem["loc"] else "model"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such field"
        yield f"line {row.lines.get(field, row.line)}, {field}: {message[:200]}"


def _csv_rows(text: str) -> Iterator[_Row]:
    """Empty cells say nothing; cells with several words are lists."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if len(set(names)) != len(names):
            raise BadInputError("line 1: a column stands there twice.", CORRECT)
        reader.fieldnames = names
        for cells in reader:
            line = reader.line_num
            if None in cells:
                raise BadInputError(f"line {line}: there are more cells than columns.", CORRECT)
            values = {name: cell.strip() for name, cell in cells.items() if cell is not None and cell.strip()}
            if values:
                yield _Row(line, values, dict.fromkeys(names, line))
    except csv.Error as error:
        raise BadInputError(f"line {reader.line_num}: this is not CSV: {error}.", CORRECT) from None


def _checked_json(text: str) -> str:
    """The same text, as YAML reads it: JSON without tabs is YAML too, and that keeps the lines."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInputError(f"line {error.lineno}: this is not JSON: {error.msg}.", CORRECT) from None
    except (ValueError, RecursionError):
        raise BadInputError("The file cannot be read: a number or its nesting is too large.", CORRECT) from None
    return text.replace("\t", " ")


def _yaml_rows(text: str) -> Iterator[_Row]:
    """By nodes and not by values, so that a field given twice is seen, and an alias stands for one text at most."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInputError(f"line {line}: this is not YAML: {error.problem or 'malformed'}.", CORRECT) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadInputError("The file cannot be read: a value is malformed or nested too deep.", CORRECT) from None
    if isinstance(root, yaml.MappingNode) and [key.value for key, _ in root.value] == ["models"]:
        root = root.value[0][1]
    if root is None:
        return
    if not isinstance(root, yaml.SequenceNode):
        raise BadInputError("The file must hold a list of models, or `models:` with a list.", CORRECT)
    for node in root.value:
        yield _yaml_row(node)


def _yaml_row(node: yaml.Node) -> _Row:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise BadInputError(f"line {line}: a model must be names and values.", CORRECT)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)[:60] if isinstance(key, yaml.ScalarNode) else ""
        if name in lines:
            raise BadInputError(f"line {key.start_mark.line + 1}, {name}: it stands there twice.", CORRECT)
        lines[name] = key.start_mark.line + 1
        values[name] = _plain(value, f"line {lines[name]}, {name}")
    return _Row(line, values, lines)


def _plain(node: yaml.Node, where: str) -> str | Sequence[str] | None:
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [str(item.value) for item in node.value]
    raise BadInputError(f"{where}: it must be one value or a list of words.", CORRECT)
