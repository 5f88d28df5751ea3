"""The Python that a sandboxed command finds first: an environment that is empty but for pip, and the work's own.

What the machine's Python happens to have installed is not in it, so that a check passes here only if it passes
elsewhere; and a plain `pip install` works in it as it does in an environment that a person has made.
Source: PEP 405 (`pyvenv.cfg`).
"""

import sys
from pathlib import Path

from runtime.implementer.bubblewrap import PYTHON_HOME

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_BASE = f"{PYTHON_HOME}/base"
_PIP = f"""#!{PYTHON_HOME}/bin/python3
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""
_DEBIAN_WHEELS = Path("/usr/share/python-wheels")


def make_python_home(folder: Path, pip: str) -> None:
    """Blocking. Fills a new folder that is to appear as `PYTHON_HOME`; the links in it hold only there.

    `pip` is where pip's own code is inside; without it there is none.
    """
    base = Path(sys.base_prefix)
    program = base / "bin" / f"python{VERSION}"
    # A folder that has this version alone: where the system has several, its `python3` may be another one.
    (folder / "base" / "bin").mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in ("python", "python3", f"python{VERSION}"):
        (folder / "base" / "bin" / name).symlink_to(program)
        (folder / "bin" / name).symlink_to(f"{_BASE}/bin/{name}")
    for library in ("lib", "lib64"):
        if (base / library / f"python{VERSION}").is_dir():
            (folder / "base" / library).symlink_to(base / library)
    packages = folder / "lib" / f"python{VERSION}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {_BASE}/bin\ninclude-system-site-packages = false\n")
    if pip:
        (packages / "pip.pth").write_text(f"{pip}\n")
        for name in ("pip", "pip3"):
            script = folder / "bin" / name
            script.write_text(_PIP)
            script.chmod(0o755)


def pip_wheel() -> Path | None:
    """The one that comes with Python for making environments; Debian keeps it apart. None where it is missing.

    It runs as it is, but has to be compiled again each time.
    """
    bundled = Path(sys.base_prefix) / "lib" / f"python{VERSION}" / "ensurepip" / "_bundled"
    found = sorted(wheel for folder in (bundled, _DEBIAN_WHEELS) for wheel in folder.glob("pip-*.whl"))
    return found[-1] if found else None
