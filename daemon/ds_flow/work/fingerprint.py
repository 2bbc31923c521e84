"""Fingerprints of the code and the settings that decide what an output holds."""

import hashlib
import json
import os
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ds_flow.core import (
    CHECKOUT,
    MAX_COLUMNS,
    MAX_UNPACKED_MB,
    MAX_UNPACKED_RATIO,
    Manifest,
    Options,
    inherited_variables,
)

LIMITS = {
    "max_columns": MAX_COLUMNS,
    "max_unpacked_mb": MAX_UNPACKED_MB,
    "max_unpacked_ratio": MAX_UNPACKED_RATIO,
}
"""Limits of what is taken, and what they are if nobody has set them."""

REFERENCE = "ref: "
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def own_code(options: Options) -> list[Path]:
    """Files and whole folders of the project from which the transform may be imported."""
    root, package = Path(options.root), re.split("[.:]", options.transform)[0]
    places = (root / "flows", root / f"{package}.py", root / package)
    return [place for place in places if place.exists()]


def code_fingerprint(options: Options) -> str:
    """Hex SHA-256 over the bytes of all code that decides an output."""
    places = [CHECKOUT / "flows", CHECKOUT / "bash", *own_code(options)]
    digest = hashlib.sha256()
    for place in dict.fromkeys(place.resolve() for place in places):
        for path in sorted([place, *place.rglob("*.py"), *place.glob("*.sh")]):
            if path.is_file():
                name = path.relative_to(place.parent)
                digest.update(os.fsencode(name) + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def settings_fingerprint(options: Options) -> str:
    """Hex SHA-256 over the settings that decide an output's content."""
    content: list[Any] = [
        options.tag,
        options.delimiter,
        options.encoding,  # a text, or a list of texts
        options.columns,
        options.transform,
        options.stages["analyze"].command,
    ]
    if options.first_column:  # without it, as in older versions
        content.append(["first_column", options.first_column])
    if options.sheet:
        content.append(["sheet", options.sheet])
    if options.for_:
        said = [asdict(one) for one in options.portable().for_]
        content.append(["for", *({k: v for k, v in one.items() if v is not None} for one in said)])
    if options.parquet:
        content.append(["parquet"])
    for name, usual in LIMITS.items():
        if getattr(options, name) != usual:
            content.append([name, str(getattr(options, name))])
    if options.required_columns:
        content.append(["required_columns", *sorted(options.required_columns)])
    stages = sorted(options.stages.items())
    content += [(name, stage.image) for name, stage in stages if stage.executor == "docker"]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def has_settings(manifest: Manifest, options: Options) -> bool:
    """Whether a run's outputs were made with these settings, whatever its tag was."""
    # The tag is part of the fingerprint: with the old tag, only the other settings can differ.
    options = replace(options, tag=manifest.tag)
    return settings_fingerprint(options) == manifest.settings_fingerprint


def git_commit() -> str:
    """The checkout's commit, as a note; "" outside a repository or without git."""
    return _named_commit(CHECKOUT / ".git") or _ask_git()


def _named_commit(repository: Path) -> str:
    """Read which commit is checked out; "" where only git knows (a worktree, packed references)."""
    try:
        head = (repository / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith(REFERENCE):
            head = (repository / head.removeprefix(REFERENCE)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return head if COMMIT.fullmatch(head) else ""


def _ask_git() -> str:
    try:
        done = subprocess.run(
            # Whoever asks: git trusts no repository of another user by itself.
            ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            env=inherited_variables(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
