"""Whether what was edited can be read at all: the check that a language brings, where the plan names none of its own.

It says in one line what a test would say in fifty, and covers files that no test reads yet.
"""

import re
import shlex
from collections.abc import Sequence

_PYTHON_CHECKS = re.compile(r"\b(compileall|py_compile|ruff|flake8|pylint|mypy|pyright)\b")
_SCRIPT_CHECKS = re.compile(r"\b(eslint|biome|oxlint|tsc|npm run (build|lint)|node --check)\b")
_TYPE_CHECKS = re.compile(r"\b(tsc|npm run (build|lint|typecheck)|vite build)\b")
_NODE = "command -v node >/dev/null || exit 0"


def syntax_checks(changed: Sequence[str], files: Sequence[str], commands: Sequence[str]) -> list[str]:
    """Commands that fail where one of the `changed` files is malformed, to be run before `commands`.

    `files` are all of the tree. None for a language of which a command already looks at every file.
    """
    named = "\n".join(commands)
    checks: list[str] = []
    python = [path for path in changed if path.endswith(".py")]
    if python and not _PYTHON_CHECKS.search(named):
        # Compiled files would be another file of the tree, which a test may count.
        checks.append(f"python3 -X pycache_prefix=/tmp/pycache -m py_compile {shlex.join(python)}")
    scripts = [path for path in changed if path.endswith((".js", ".mjs", ".cjs"))]
    if scripts and not _SCRIPT_CHECKS.search(named):
        checks.append("; ".join((_NODE, " && ".join(map(_script_check, scripts)))))
    typed = any(path.endswith((".ts", ".tsx", ".mts", ".cts")) for path in changed)
    if typed and {"tsconfig.json", "package.json"} <= set(files) and not _TYPE_CHECKS.search(named):
        checks.append("[ ! -x node_modules/.bin/tsc ] || npx tsc --noEmit")
    return checks


def _script_check(path: str) -> str:
    """What is no CommonJS may be a module for a browser, of which no `package.json` says so."""
    name = shlex.quote(path)
    if path.endswith((".mjs", ".cjs")):
        return f"node --check {name}"
    return f"(node --check {name} 2>/dev/null || node --input-type=module --check < {name})"
