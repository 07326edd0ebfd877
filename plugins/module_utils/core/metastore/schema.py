# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the metadata file."""

from __future__ import annotations

#: In the file's header: "wcow", and the version of the schema. A higher version is refused.
APPLICATION_ID = 0x77636F77
VERSION = 1

#: The version in a file whose tables are gone for good, see ``Transaction.retire``.
RETIRED = 0

# A file whose statements differ from these, even in white space, is refused: a change needs a new version.
# The table is clustered by name: a walk is in byte order (SQLite compares text
# with memcmp) without a sort. Labels are stored twice, as one JSON text for
# reading and as rows for searching; Transaction._write_labels writes both.
TABLES = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE snapshots (
    name    TEXT PRIMARY KEY NOT NULL,
    id      INTEGER NOT NULL UNIQUE,
    kind    TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
    parent  TEXT REFERENCES snapshots (name),
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    labels  TEXT NOT NULL,
    size    INTEGER NOT NULL,
    inodes  INTEGER NOT NULL,
    holder  TEXT
) WITHOUT ROWID;
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE INDEX snapshots_by_kind ON snapshots (kind);
CREATE TABLE labels (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    id    INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    PRIMARY KEY (key, value, id)
) WITHOUT ROWID;
CREATE INDEX labels_by_id ON labels (id);
CREATE TABLE sequence (last INTEGER NOT NULL);
INSERT INTO sequence VALUES (0);
CREATE TABLE settings (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
"""

#: What sqlite_master has in such a file: type, name, table and statement of each object.
OBJECTS = {
    (words[1].lower(), words[2], words[2] if words[1] == "TABLE" else words[4], statement)
    for statement in map(str.strip, TABLES.split(";"))
    for words in [statement.split()]
    if statement.startswith("CREATE")
} | {("index", "sqlite_autoindex_snapshots_2", "snapshots", None)}
