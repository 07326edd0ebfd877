# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import a built artefact as Galaxy does: ``python tests/publish/importer.py ARTEFACT [--repository URL]``.

galaxy-importer only logs what a reviewer rejects. Here, each of its warnings and errors is a failure. It also refuses
an artefact without the URL of a repository. The project has none before a release, so ``--repository`` sets one in a
copy of the artefact.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import tarfile
import tempfile
from pathlib import Path

CONFIGURATION = Path(__file__).with_name("importer.cfg")


class Complaints(logging.Handler):
    """Keeps what is at least a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname.lower()}: {record.getMessage()}")


def with_repository(artefact: Path, url: str, copy: Path) -> None:
    """Write a copy of an artefact whose manifest has this repository; ``FILES.json`` does not cover the manifest."""
    with tarfile.open(artefact) as source, tarfile.open(copy, "w:gz") as target:
        for member in source:
            data = b""
            if member.isfile():
                data = source.extractfile(member).read()
            if member.name == "MANIFEST.json":
                manifest = json.loads(data)
                manifest["collection_info"]["repository"] = url
                data = json.dumps(manifest).encode()
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))


def complaints_about(artefact: Path) -> list[str]:
    """Return what galaxy-importer has against an artefact."""
    os.environ.setdefault("GALAXY_IMPORTER_CONFIG", str(CONFIGURATION))
    # It reads the environment when it is imported.
    from galaxy_importer import collection, config, exceptions, schema

    log = logging.getLogger("importer")
    log.propagate = False
    log.setLevel(logging.WARNING)
    complaints = Complaints()
    log.addHandler(complaints)
    try:
        with artefact.open("rb") as file:
            name = schema.CollectionFilename.parse(artefact.name)
            settings = config.Config(config.ConfigFile.load())
            known = collection.CollectionFilename(name.namespace, name.name, str(name.version))
            collection.import_collection(file, known, logger=log, cfg=settings)
    except exceptions.ImporterError as error:
        return [*complaints.messages, f"rejected: {error}"]
    return complaints.messages


def main(arguments: list[str]) -> int:
    """Return 0 if there is nothing against the artefact, else 1."""
    parser = argparse.ArgumentParser(prog="importer.py", description="Import an artefact as Galaxy does.")
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--repository", metavar="URL", help="stands for the repository that the artefact lacks")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        artefact = options.artefact
        if options.repository:
            artefact = Path(directory) / artefact.name
            with_repository(options.artefact, options.repository, artefact)
        found = complaints_about(artefact)
    for complaint in found:
        print(f"galaxy-importer: {complaint}", file=sys.stderr)
    print(f"galaxy-importer: {options.artefact.name} is {'rejected' if found else 'accepted'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
