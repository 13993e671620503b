"""Writing a new package with a motion module in it, for somebody to make their own of."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from muybridge.authoring.package_files import TEMPLATES
from muybridge.errors import ConfigError, OutputError
from muybridge.files.atomic import check_folder_above, output_error
from muybridge.motion import motion_kinds
from muybridge.version import __version__

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*[A-Za-z0-9]|[A-Za-z]")


def new_motion_package(name: str, kind: str | None = None, folder: Path | None = None) -> Path:
    """Write an installable package: a module with its config, an entry point, tests that pass, a README.

    Args:
        name: of the package, as it is imported.
        kind: of the motion module; `name` if not given.
        folder: to make; `name` in the present folder if not given.

    Returns:
        The folder.

    Raises:
        ConfigError: a name or kind that is no Python identifier of ASCII letters, or that is taken.
        OutputError: the folder exists already or cannot be made; nothing is left behind.
    """
    kind = name if kind is None else kind
    _check_name(name)
    _check_kind(kind)
    folder = Path(name) if folder is None else folder
    if folder.exists() or folder.is_symlink():
        raise OutputError(f"{folder} exists already, and nothing of it is overwritten. Choose another folder or name.")
    check_folder_above(folder)
    words = {
        "package": name,
        "kind": kind,
        "name": _class_prefix(kind),
        "project": name.replace("_", "-"),
        "version": __version__,
    }
    _write(
        folder, {Template(path).substitute(words): Template(text).substitute(words) for path, text in TEMPLATES.items()}
    )
    return folder


def _write(folder: Path, files: Mapping[str, str]) -> None:
    target = folder.absolute()
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".muybridge-", suffix=".part", dir=target.parent))
        temporary.chmod(0o755)  # mkdtemp's own is for secrets
        for path, text in files.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text)
        temporary.rename(target)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _check_name(name: str) -> None:
    _check_identifier("package", name)
    if name in sys.stdlib_module_names or name in sys.builtin_module_names or _is_installed(name):
        raise ConfigError(f"There is a package {name!r} already, which this one would hide. Choose another name.")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a broken package is there nevertheless
        return True


def _check_kind(kind: str) -> None:
    _check_identifier("kind", kind)
    if kind in motion_kinds():
        raise ConfigError(
            f"The motion kind {kind!r} is taken. Taken are: {', '.join(motion_kinds())}. Choose another with --kind."
        )


def _check_identifier(what: str, name: str) -> None:
    if _IDENTIFIER.fullmatch(name) and not keyword.iskeyword(name):
        return
    near = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_0123456789")
    hint = f", such as {near!r}" if _IDENTIFIER.fullmatch(near) and not keyword.iskeyword(near) else ""
    raise ConfigError(
        f"The name of a {what} must be letters (a to z), digits and underscores, beginning with a letter, not "
        f"ending with an underscore, and no word of Python's own{hint}; given {name!r}."
    )


def _class_prefix(kind: str) -> str:
    """`My` of `my_motion`, for the classes `MyConfig` and `MyMotionModule`."""
    words = "".join(word[:1].upper() + word[1:] for word in kind.split("_"))
    return words.removesuffix("Motion") or words
