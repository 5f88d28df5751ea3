"""Which install commands depend on a project's manifests alone, so that what they make can be used again."""

import re
from collections.abc import Sequence

from runtime.implementer.packages.manifests import Manifests

_WORD = re.compile(r"[\w@%+=:,./~-]+")
_FLAG = re.compile(r"--?[A-Za-z][\w-]*(=[\w-]+)?")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,]+\])?([=<>!~]=?[\w.*]+)?")
_ACTIVATION = re.compile(r"[\w./-]+/bin/activate")
_NPM_INSTALLS = ("ci", "clean-install", "i", "install")
_OF_A_FOLDER = ("-e", "--editable", "-t", "--target", "-c", "--constraint")
"""Flags of pip by which it reads or writes a folder, or reads a file that is no manifest."""


def reads_manifests_only(command: str, manifests: Manifests) -> bool:
    """Whether no other file of the project can make a difference to what this command makes."""
    steps = [step.split() for step in command.split("&&")]
    if any(npm.has_install_scripts for npm in manifests.npm) and any("npm" in step for step in steps):
        return False
    return all(step and all(map(_WORD.fullmatch, step)) and _is_known(step) for step in steps)


def _is_known(step: Sequence[str]) -> bool:
    program, arguments = step[0].rsplit("/", 1)[-1], list(step[1:])
    if program in ("python", "python3") and arguments[:2] == ["-m", "pip"]:
        program, arguments = "pip", arguments[2:]
    if program in ("pip", "pip3"):
        return arguments[:1] == ["install"] and _names_packages(arguments[1:])
    if program in ("python", "python3") and arguments[:2] == ["-m", "venv"]:
        return all(map(_FLAG.fullmatch, arguments[2:-1])) and len(arguments) > 2
    if step[0] == "npm":
        return bool(arguments) and arguments[0] in _NPM_INSTALLS and all(map(_FLAG.fullmatch, arguments[1:]))
    if step[0] in (".", "source"):
        return len(arguments) == 1 and _ACTIVATION.fullmatch(arguments[0]) is not None
    return step[0] == "cd" and len(arguments) == 1


def _names_packages(arguments: Sequence[str]) -> bool:
    """Whether pip is told of packages and requirements files, and of no folder."""
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-r", "--requirement"):
            next(rest, "")
            continue
        known = _FLAG.fullmatch(argument) or _REQUIREMENT.fullmatch(argument)
        if not known or argument.partition("=")[0] in _OF_A_FOLDER:
            return False
    return True
