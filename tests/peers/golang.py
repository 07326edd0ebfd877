# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build our Go programs with the Go packages of Debian: bbolt, and containerd with its test suites."""

from __future__ import annotations

import os
import pathlib
import subprocess

SOURCES = pathlib.Path(__file__).parent / "go"

#: Where Debian installs Go packages. ``golang-github-containerd-containerd-dev`` depends on all that we import.
DEBIAN_PACKAGES = pathlib.Path("/usr/share/gocode")

#: Go builds these packages again only after a change.
CACHE = pathlib.Path(__file__).parents[2] / ".cache" / "go"

#: A first build compiles all dependencies. It takes half a minute on two idle cores.
BUILD_TIMEOUT = 1200.0


def build(name: str, *, is_test: bool = False) -> pathlib.Path:
    """Build the program in ``go/<name>``, or the program that runs the tests there. Return the path of the file."""
    program = CACHE / "bin" / name
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": f"{CACHE / 'path'}:{DEBIAN_PACKAGES}",
        "GOCACHE": str(CACHE / "build"),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    subprocess.run(
        ["go", *(["test", "-c"] if is_test else ["build"]), "-o", str(program), "."],
        cwd=SOURCES / name,
        env=environment,
        check=True,
        timeout=BUILD_TIMEOUT,
    )
    return program
