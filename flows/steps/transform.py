"""The project's transform: import it, and call it."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, FunctionType
from typing import cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from csv_io.errors import TableError
from csv_io.table import to_text
from ds_flow.core import CHECKOUT, InputError, SettingsError, hides, is_disk_error
from steps.user_code import OwnCode, kind_of, said

NUL = "\0"
APPENDED = ("processed_at", "source_file", "tag")

Transform = Callable[[pd.DataFrame], pd.DataFrame]


class TransformError(InputError):
    """The transform failed on this file, or returned no table."""


def load(spec: str, root: Path) -> Transform:
    """Import `module:function`: the project's own, else the environment's or ds-flow's.

    Raises:
        SettingsError: the function cannot be found.
    """
    folders = [str(root / "flows"), str(root)]
    # Last, and before the checkout's: processes that a transform spawns look along this path, too.
    places = dict.fromkeys((*folders, str(CHECKOUT / "flows")))
    sys.path[:] = [*(place for place in sys.path if place not in places), *places]
    module, _, name = spec.partition(":")
    try:
        prefer(module.partition(".")[0], folders)
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        own = OwnCode(root, module)
        own.print_trace(error)
        raise SettingsError(f"compute.transform {spec}: {own.told(error)}") from error
    if not callable(found):
        raise SettingsError(f"compute.transform {spec}: not a function")
    return cast("Transform", found)


def file_of(spec: str, root: Path) -> str:
    """Name the file of a transform that was imported, relative to the project if it is inside."""
    file = getattr(sys.modules[spec.partition(":")[0]], "__file__", None) or ""
    return str(Path(file).relative_to(root)) if Path(file).is_relative_to(root) else file


def prefer(module: str, folders: Sequence[str]) -> None:
    """Import a module from these folders if they have it, whoever else has one of its name.

    It alone: were the folders first for every import, a project's random.py would be everyone's.
    """
    spec = PathFinder.find_spec(module, folders)
    if spec is not None and spec.loader is not None:
        sys.modules[module] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])


def gives_back(transform: Transform) -> bool:
    """Whether a function does nothing but return what it gets, as the shipped one does.

    Its code says so. It need not be called then, and no frame be made for it.
    """
    code = getattr(transform, "__code__", None)
    if not isinstance(transform, FunctionType) or not isinstance(code, CodeType):
        return False
    is_of_one = (code.co_argcount, code.co_kwonlyargcount) == (1, 0)
    return is_of_one and code.co_code == _given.__code__.co_code


def _given(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def apply(
    transform: Transform, frame: pd.DataFrame, own: OwnCode, hidden: Sequence[str] = ()
) -> pa.Table:
    """Give what the transform makes of a frame, as text.

    What an exception says may quote cells. It is left out if the frame has hidden columns.

    Raises:
        TransformError: for every error except too little memory and a full disk.
    """
    if not any(hides(hidden, str(column)) for column in frame.columns):
        return _apply(transform, frame, own)
    try:
        return _apply(transform, frame, own, is_private=True)
    except MemoryError as error:
        error.args = ()
        error.__cause__, error.__suppress_context__ = None, True
        raise


def _apply(
    transform: Transform, frame: pd.DataFrame, own: OwnCode, *, is_private: bool = False
) -> pa.Table:
    told = kind_of if is_private else said
    process, mask = os.getpid(), os.umask(0)
    os.umask(mask)
    try:
        made = transform(frame)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # a transform must not end the whole shard
        if is_disk_error(error):
            raise
        own.print_trace(error, is_private=is_private)
        raise TransformError(own.told(error, is_private=is_private)) from error
    finally:
        if os.getpid() != process:  # a fork that the transform has left behind
            os._exit(0)
        os.umask(mask)
    if not isinstance(made, pd.DataFrame):
        raise TransformError(f"the transform returned {type(made).__name__}, not a DataFrame")
    try:
        table = to_text(made)
    except (ValueError, TypeError, TableError, pa.ArrowException) as error:
        raise TransformError(
            f"the transform returned something that is not a table: {told(error)}"
        ) from error
    _refuse_unpublishable(table)
    return table


def _refuse_unpublishable(table: pa.Table) -> None:
    """Refuse names that are taken, and NUL bytes: the steps that follow read no file with one."""
    if taken := set(APPENDED).intersection(table.column_names):
        raise TransformError(f"the transform returned a column {min(taken)!r}; the name is taken")
    for name, cells in zip(table.column_names, table.columns, strict=True):
        if NUL in name or pc.any(pc.match_substring(cells, NUL)).as_py():
            raise TransformError(f"the transform returned a NUL byte in column {name!r}")
