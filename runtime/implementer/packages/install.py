"""Which install commands depend on a project's manifests alone, so that what they make can be used again."""

import re

from runtime.implementer.packages.manifests import Manifests

_WORD = r"[\w@%+=:,./~-]+"
_FLAG = r"--?[\w-]+(=[\w./:-]+)?"
_PROJECT = r"\.|\.\[|-e\b|--editable|\./|\.\./|/"
"""How the words begin by which pip is told to install the project itself, or another folder."""
_NAME = r"[\w.-]+(\[[\w,]+\])?([=<>!~]=?[\w.*]+)?"
_PIP = rf"({_WORD}/)?(pip3?|python3? -m pip) install( (?!{_PROJECT})({_NAME}|{_FLAG}|-r {_WORD}))+"
_VENV = rf"({_WORD}/)?python3? -m venv( {_FLAG})* {_WORD}"
_NPM = rf"npm (ci|install|i|clean-install)( {_FLAG}| --prefix {_WORD})*"
_STEP = re.compile(rf"({_PIP}|{_VENV}|{_NPM}|(\.|source) {_WORD}/bin/activate|cd {_WORD})")


def reads_manifests_only(command: str, manifests: Manifests) -> bool:
    """Whether no other file of the project can make a difference to what this command makes."""
    if any(npm.has_install_scripts for npm in manifests.npm) and "npm" in command:
        return False
    steps = [" ".join(step.split()) for step in command.split("&&")]
    return all(_STEP.fullmatch(step) for step in steps)
