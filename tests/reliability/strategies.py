# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis strategies for hostile input: requests, filters, labels, sizes, layer tars, disks and databases.

Most generated values are valid except in one or two places. A value that is
wrong everywhere fails at the first check and does not test the other checks.
"""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any, Dict, List, NamedTuple, Tuple

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels as label_rules
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import pax as paxformat
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx.checksum import with_checksum
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.request import OPERATIONS
from hypothesis import strategies as st

# -- text --------------------------------------------------------------------

#: Characters with a special meaning in JSON, SQL, NTFS, POSIX, Go or a terminal.
_CHARACTERS = st.one_of(
    st.sampled_from(
        "\0\n\t /\\:*?\"'<>|.,-_=~!%$;()[]{}\x1b\x7f\u0130\u0131\u00df\u017f\u212a\ufeff\ufffd\u202e\u2028"
    ),
    st.characters(),
    st.sampled_from("\ud800\udc80\udfff\U0001f600\U0010ffff"),
)
WILD_TEXT = st.one_of(
    st.text(_CHARACTERS, max_size=12),
    st.sampled_from(["", ".", "..", "../../outside/kept", "a" * 300, "a" * 5000, "../" * 200, "CON", "NUL.txt", "a:b"]),
)
#: The list is short, so that operations often use the snapshots that earlier operations made.
KEYS = st.sampled_from(["one", "two", "extract-1 three", "base", "../up", "a\0b", "\u00e4/\U0001f600"])

_NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 20 * 1024**3, 65 * 1024**4]),
    st.integers(),
)


def edited(text: st.SearchStrategy[bytes], most: int = 3) -> st.SearchStrategy[bytes]:
    """Return bytes with flipped bits, and with pieces that are cut out, doubled or replaced."""
    edit = st.tuples(
        st.sampled_from(["flip", "cut", "double", "insert", "end"]),
        st.integers(0, 1 << 20),
        st.integers(0, 64),
        st.binary(max_size=4),
    )
    return st.builds(_edit, text, st.lists(edit, max_size=most))


def _edit(data: bytes, edits: List[Tuple[str, int, int, bytes]]) -> bytes:
    for how, where, length, new in edits:
        offset = where % (len(data) + 1)
        if how == "flip" and offset < len(data):
            data = data[:offset] + bytes([data[offset] ^ 1 << length % 8]) + data[offset + 1 :]
        elif how == "cut":
            data = data[:offset] + data[offset + length :]
        elif how == "double":
            data = data[: offset + length] + data[offset:]
        elif how == "insert":
            data = data[:offset] + new + data[offset:]
        elif how == "end":
            data = data[:offset]
    return data


# -- requests ----------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.floats(), WILD_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WILD_TEXT, inner, max_size=4)),
    max_leaves=10,
)
LABEL_MAPS = st.dictionaries(
    st.one_of(
        st.sampled_from([label_rules.UVM_SCRATCH, label_rules.ROOTFS_SIZE_GB, label_rules.ROOTFS_SIZE_BYTES]),
        WILD_TEXT,
    ),
    st.one_of(
        st.sampled_from(
            ["", "0", "21", "22548578304", "-1", "1e3", " 21", "\u0662\u0661", "9" * 30, "18446744073709551615"]
        ),
        WILD_TEXT,
    ),
    max_size=4,
)
SIZES = st.one_of(
    _NUMBERS,
    st.booleans(),
    WILD_TEXT,
    st.builds(
        "{}{}{}".format,
        st.one_of(st.integers(0, 70000), _NUMBERS),
        st.sampled_from(["", " ", "  "]),
        st.sampled_from(["", "B", "KB", "kib", "M", "MB", "gb", "GiB", "T", "TB", "PB", "i", "iB", "x"]),
    ),
)
_DIGESTS = st.sampled_from(
    ["sha256:" + "0" * 64, "sha256:" + "A" * 64, "sha256:../../outside/kept", "md5:0", "", "sha256:0"]
)
_IMAGES = st.fixed_dictionaries(
    {},
    optional={
        "config": _DIGESTS,
        "os_version": st.one_of(st.sampled_from(["10.0.20348.1", "10.0.17763", "", "x"]), WILD_TEXT),
        "diff_ids": st.lists(_DIGESTS, max_size=3),
    },
)
_FILTER_TEXTS = st.sampled_from(
    ["", "kind==active", "name~=^o", "labels.a", 'name~="(a+)+$"', "kind=", "\ud800", "name~=("]
)

#: Strategies by type of argument, as in the table of operations. ``requests`` adds the paths.
_ARGUMENTS: Dict[str, st.SearchStrategy[Any]] = {
    "text": KEYS,
    "flag": st.booleans(),
    "count": st.one_of(st.integers(0, 10), _NUMBERS),
    "size": SIZES,
    "texts": st.lists(st.one_of(KEYS, _FILTER_TEXTS, st.just("labels.a"), WILD_TEXT), max_size=3),
    "labels": LABEL_MAPS,
    "image": st.one_of(WILD_TEXT, st.lists(_IMAGES, max_size=3).map(lambda images: {"images": images})),
    "source": st.one_of(WILD_TEXT, st.builds(lambda digest: {"staged": digest}, _DIGESTS)),
}
_STATES = st.sampled_from(["active", "view", "committed", "absent", "mounted", "unmounted", "present", ""])
_SNAPSHOT = OPERATIONS["ensure_snapshot"].arguments
_ARGUMENTS["snapshots"] = st.lists(
    st.fixed_dictionaries(
        {"state": _STATES}, optional={name: _ARGUMENTS[rule] for name, rule in _SNAPSHOT.items() if name != "state"}
    ),
    max_size=4,
)


def requests(inside: str) -> st.SearchStrategy[bytes]:
    """Return requests whose root and other paths are in the directory ``inside``, or are not paths at all."""
    paths = st.one_of(
        st.sampled_from(
            ["place", "place/below", "file", "root/snapshots/1", "root", "absent/x", "pla\\ce", "x" * 300]
        ).map(lambda name: f"{inside}/{name}"),
        st.sampled_from(["", "relative", "C:\\data", "\\\\host\\share", f"{inside}/\0", "\ud800", "//?/C:/", "~"]),
        st.just("/" + inside + "//place"),
    )
    roots = st.one_of(
        st.just(f"{inside}/root"),
        st.sampled_from(
            [f"{inside}/absent", f"{inside}/file", f"{inside}/file/x", "/" + inside + "/root", f"{inside}/a?b#%41"]
        ),
        st.sampled_from(
            [
                f"{inside}/" + "x" * 300,
                f"{inside}/" + "x/" * 3000,
                "",
                "root",
                "C:\\root",
                f"{inside}/\ud800",
                f"{inside}/\0",
            ]
        ),
    )
    by_name = {
        "state": _STATES,
        "digest": _DIGESTS,
        "target": paths,
        "dest": paths,
        "src": st.one_of(paths, _ARGUMENTS["source"], _ARGUMENTS["image"]),
    }

    def operation(name: str) -> st.SearchStrategy[Dict[str, Any]]:
        wanted = OPERATIONS[name].arguments
        required = {each: by_name.get(each, _ARGUMENTS[rule[:-1]]) for each, rule in wanted.items() if rule[-1] == "!"}
        optional = {each: by_name.get(each, _ARGUMENTS[rule]) for each, rule in wanted.items() if rule[-1] != "!"}
        return st.fixed_dictionaries(
            {"operation": st.just(name), "arguments": st.fixed_dictionaries(required, optional=optional)}
        )

    request = st.fixed_dictionaries(
        {
            "protocol": st.just(1),
            "root": roots,
            "layers": st.just("emulated"),
            "operations": st.lists(st.sampled_from(sorted(OPERATIONS)).flatmap(operation), min_size=1, max_size=3),
        },
        optional={
            "check_mode": st.booleans(),
            "on_error": st.sampled_from(["stop", "continue"]),
            "environment": st.dictionaries(st.just("WCOW_TEST"), WILD_TEXT, max_size=1),
        },
    )
    whole = request.map(_json)
    return st.one_of(
        whole,
        st.builds(_put, request, st.lists(st.integers(0, 20), min_size=1, max_size=5), JSON).map(_json),
        edited(whole),
        st.one_of(JSON.map(_json), st.binary(max_size=40), NESTED, st.sampled_from(_BAD_JSON)),
    )


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _put(request: Any, way: List[int], value: Any) -> Any:
    """Replace the value that the steps in ``way`` lead to in a request, or add a key there."""
    holder = request
    for step in way:
        keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            break
        key = keys[step % len(keys)]
        if not isinstance(holder[key], (dict, list)) or step == way[-1]:
            holder[key] = value
            return request
        holder = holder[key]
    if isinstance(holder, dict):
        holder["extra"] = value
    else:
        holder.append(value)
    return request


NESTED = st.builds(
    lambda opening, depth: opening * depth,
    st.sampled_from([b"[", b'{"a":', b'[{"operations":', b'{"protocol":1,"root":']),
    st.sampled_from([10, 900, 1000, 5000, 100_000]),
)
_BAD_JSON = [
    b"\xef\xbb\xbf{}",
    b'{"protocol":1,"protocol":1}',
    b'{"protocol":NaN}',
    b'{"protocol":1e999}',
    b'{"protocol":' + b"9" * 6000 + b"}",
    b'"' + b"\\ud800" * 1000 + b'"',
    b"\0" * 100,
    json.dumps({"protocol": 1}).encode("utf-16"),
    json.dumps({"protocol": 1}).encode("utf-32"),
    b'{"protocol":1,"root":"\xff"}',
]

# -- filters -----------------------------------------------------------------


class Condition(NamedTuple):
    """A selector from which a filter text was written."""

    fieldpath: Tuple[str, ...]
    operator: str
    value: str


_FIELD_WORDS = st.one_of(
    st.sampled_from(["kind", "name", "parent", "labels", "a", "b_1", "size"]),
    st.text("abcXYZ019_", min_size=1, max_size=6),
)
_PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd"), max_size=8)
_OPERATORS = st.sampled_from(["", "==", "!=", "~="])
CONDITIONS = st.lists(
    st.builds(
        lambda path, operator, value: Condition(tuple(path), operator, value if operator else ""),
        st.lists(st.one_of(_FIELD_WORDS, _PLAIN_TEXT.filter(bool)), min_size=1, max_size=3),
        _OPERATORS,
        st.one_of(_PLAIN_TEXT, KEYS.filter(lambda key: "\0" not in key), st.sampled_from(["active", "view", "1", ""])),
    ),
    min_size=1,
    max_size=4,
)


def quoted(text: str) -> str:
    """Return a text as a quoted literal that uses every escape of the language."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\a": "\\a"}
    return (
        '"' + "".join(escapes.get(char, char if char.isprintable() else f"\\U{ord(char):08x}") for char in text) + '"'
    )


def filter_text(conditions: List[Condition], space: str) -> str:
    """Return a filter with these conditions, and with ``space`` wherever white space is legal."""
    parts = []
    for fieldpath, operator, value in conditions:
        fields = ".".join(
            part if part.isascii() and part.replace("_", "a").isalnum() else quoted(part) for part in fieldpath
        )
        parts.append(f"{fields}{space}{operator}{space}{quoted(value)}" if operator else fields)
    return f",{space}".join(parts)


_FILTER_PIECES = st.sampled_from(
    [
        "kind",
        "name",
        "labels",
        ".",
        "==",
        "!=",
        "~=",
        "=",
        "~",
        ",",
        '"',
        "/",
        "|",
        "\\",
        "\\x",
        "\\777",
        "\\u12",
        "\\Uffffffff",
        " ",
        "\t",
        "(",
        "[",
        "a",
        "*",
        "{1000}",
        "\\pL",
        "(?i)",
        "\0",
        "\ufffd",
        "\ud800",
        "\u00e9",
        "^",
        "$",
        '\\"',
        "\n",
    ]
)
FILTER_SOUP = st.one_of(
    st.lists(_FILTER_PIECES, max_size=14).map("".join),
    st.builds(filter_text, CONDITIONS, st.sampled_from(["", " "])).flatmap(
        lambda text: edited(st.just(text.encode())).map(lambda data: data.decode("utf-8", "surrogateescape"))
    ),
    st.lists(_FILTER_PIECES, max_size=8).map(lambda pieces: "name~=|" + "".join(pieces) + "|"),
    st.builds(
        lambda piece, times: f'name~="{piece * times}"', _FILTER_PIECES, st.sampled_from([50, 300, 3000, 40_000])
    ),
)

_PATTERN_PIECES = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "\\w",
        "\\d",
        "\\s",
        "[a-c]",
        "[^a]",
        "[[:alpha:]]",
        "\\pL",
        "\\x{10ffff}",
        "^",
        "$",
        "\\b",
        "\\B",
        "|",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?P<n>",
        "*",
        "+",
        "?",
        "{2}",
        "{0,9}",
        "{1000}",
        "{5,}",
        "*?",
        "\\Q",
        "\\E",
        "\\",
        "[",
        "]",
        "\u017f",
    ]
)
PATTERNS = st.one_of(
    st.lists(_PATTERN_PIECES, max_size=20).map("".join),
    st.builds(
        lambda piece, inner, times: piece.replace("@", inner * times),
        st.sampled_from(["(@)*", "(@)+$", "(?:(?:@)*)*b", "((((@){9}){9}){9})", "@", "[@]", "(?i:@)"]),
        _PATTERN_PIECES,
        st.sampled_from([1, 3, 30, 900]),
    ),
)
SUBJECTS = st.one_of(st.text(st.sampled_from("ab1 \n\u017fK_"), max_size=40), st.just("a" * 2000), st.text(max_size=20))

# -- layer tars --------------------------------------------------------------

_COMPONENTS = st.one_of(
    st.sampled_from(["a", "b", "A", "dir", "c.txt"]),
    st.sampled_from(
        [
            "..",
            ".",
            "",
            ".wh.a",
            ".wh.",
            ".wh..wh..opq",
            ".wh..",
            "a:stream",
            ":",
            "CON",
            "a\\b",
            "a.",
            "a ",
            "x" * 255,
            "x" * 256,
            "\u0130",
            "\u00e4",
            "i",
            "I",
            "b/..",
            "C:",
            "\x01",
            "*",
        ]
    ),
)
_NAMES = st.builds(
    lambda root, parts, end: "/".join([root, *parts]) + end,
    st.sampled_from(
        ["Files"] * 8
        + [
            "UtilityVM/Files",
            "UtilityVM/Files",
            "Hives",
            "UtilityVM",
            "files",
            "",
            "/Files",
            "../Files",
            ".",
            "C:/Files",
            "Files/..",
        ]
    ),
    st.lists(_COMPONENTS, max_size=3),
    st.sampled_from(["", "", "", "/", ":s", "\0x"]),
)
_DEEP = st.builds(lambda times: "Files/" + "d/" * times + "x", st.sampled_from([60, 3000, 16000]))
_LINKS = st.one_of(
    _NAMES,
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "../..",
            "a",
            "dir/../..",
            "/etc/passwd",
            "C:\\Windows",
            "\\\\host\\share",
            "\\??\\C:\\..",
            "\\outside",
            "a" * 300,
        ]
    ),
)
_TYPES = st.sampled_from("00000005555511222" + "\x007346SxgLKVDMN\xff")
_FIELD_BYTES = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.none(),
    st.binary(min_size=1, max_size=12),
    st.sampled_from(
        [
            b"77777777777\0",
            b"-1\0",
            b" 7 \0",
            b"\x80" + b"\0" * 10 + b"\x01",
            b"\xff" * 12,
            b"\x80" + b"\xff" * 11,
            b"0x10\0",
            b"\0" * 12,
        ]
    ),
)
_PAX_KEYS = st.sampled_from(
    [
        layertar.FILE_ATTRIBUTES,
        layertar.CREATION_TIME,
        "MSWINDOWS.rawsd",
        "MSWINDOWS.xattr.a",
        "MSWINDOWS.mountpoint",
        "path",
        "linkpath",
        "size",
        "mtime",
        "atime",
        "GNU.sparse.major",
        "GNU.sparse.name",
        "hdrcharset",
        "SCHILY.xattr.a",
        "uid",
        "\u00e4",
    ]
)
_PAX_VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "16",
            "32",
            "-1",
            "1.5",
            "-1.999999999",
            "1e9",
            "99999999999999999999",
            "4294967296",
            "AAAA",
            "=",
            "\n",
            "nan",
            "\u0661",
        ]
    ),
    _NAMES,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)


class _Lie(NamedTuple):
    """A wrong field in a header block: its offset, length and bytes, and whether the checksum matches them."""

    offset: int
    length: int
    data: bytes
    checksum: bool


_FIELDS = st.sampled_from(
    [
        (0, 100),
        (100, 8),
        (108, 8),
        (124, 12),
        (124, 12),
        (136, 12),
        (148, 8),
        (156, 1),
        (157, 100),
        (257, 8),
        (345, 155),
    ]
)
_LIES = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.builds(
        lambda field, data, good: _Lie(*field, data or b"", good),
        _FIELDS,
        _FIELD_BYTES,
        st.sampled_from([True, True, True, False]),
    ),
)


def _entry(name: str, kind: str, link: str, pax: Dict[str, str], content: bytes, lie: Any, said: int) -> bytes:
    data = content if kind in "0\x007xgLK" else b""
    if kind in "LK" and not data:
        data = name.encode("utf-8", "replace") + b"\0"
    blocks = paxformat.header(
        name,
        kind if kind.isascii() else "0",
        size=len(data) + said if data else 0,
        mode=0o644,
        mtime_ns=1_600_000_000 * 10**9,
        link=link,
        pax=pax,
    )
    if kind == "\xff" or lie:
        blocks, block = blocks[:-512], bytearray(blocks[-512:])
        if kind == "\xff":
            block[156] = 255
        if lie:
            block[lie.offset : lie.offset + lie.length] = lie.data[: lie.length].ljust(lie.length, b"\0")
        if lie is None or lie.checksum:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        blocks += bytes(block)
    return blocks + data + layertar.padding(len(data))


_PAX_TEXTS = st.sampled_from(
    [
        b"9 a=b\n",
        b"6 a=b\n",
        b"6 a=b\n" * 3,
        b"99999999 a=b\n",
        b"7 a=b\n",
        b"6 a b\n",
        b"5 =b\n",
        b"6 a=\xff\n",
        b"0 \n",
        b" ",
        b"20 size=100000000000\n",
    ]
)
_ENTRIES = st.builds(
    _entry,
    st.one_of(_NAMES, _NAMES, _NAMES, _NAMES, _DEEP),
    _TYPES,
    _LINKS,
    st.dictionaries(_PAX_KEYS, _PAX_VALUES, max_size=2),
    st.one_of(st.binary(max_size=20), _PAX_TEXTS, st.just(bytes(1500))),
    _LIES,
    st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1, 512, 1 << 40]),
)
_GOOD_ENTRIES = st.sampled_from(
    [
        layertar.header("Files", layertar.DIRECTORY),
        layertar.header("Files/dir", layertar.DIRECTORY),
        layertar.header("Files/dir/a", layertar.FILE, size=3, pax={layertar.FILE_ATTRIBUTES: "32"})
        + b"abc"
        + layertar.padding(3),
        layertar.header("Files/b", layertar.SYMLINK, link="dir"),
        layertar.header("Files/h", layertar.HARD_LINK, link="Files/dir/a"),
        layertar.header("UtilityVM/Files/u", layertar.FILE, size=1) + b"u" + layertar.padding(1),
        layertar.header("Files/gone", layertar.WHITEOUT),
    ]
)
_ENDS = st.sampled_from(
    [layertar.END_MARK] * 6 + [b"", bytes(512), bytes(512) + b"x" * 512, layertar.END_MARK + b"more", bytes(511)]
)
#: Windows requires an entry for each directory, ahead of what is in it.
_DIRECTORIES = b"".join(
    layertar.header(name, layertar.DIRECTORY)
    for name in ("Files", "Files/dir", "UtilityVM", "UtilityVM/Files", "UtilityVM/Files/dir")
)
PLAIN_TARS = st.builds(
    lambda start, entries, end: b"".join([start, *entries, end]),
    st.sampled_from([_DIRECTORIES, _DIRECTORIES, _DIRECTORIES, b""]),
    st.lists(st.one_of(_GOOD_ENTRIES, _ENTRIES), min_size=1, max_size=6),
    _ENDS,
)
#: One entry below 16,000 nested directories. Their paths would take half a gigabyte if each were stored separately.
DEEP_TAR = layertar.header("Files/" + "d/" * 16000 + "x", layertar.FILE) + layertar.END_MARK
#: This directory could not be exported again, because its name would be read as a deletion.
BELOW_WHITEOUT_TAR = (
    _DIRECTORIES + _entry("UtilityVM/Files/dir/.wh..wh..opq/a", "0", "", {}, b"a", False, 0) + layertar.END_MARK
)
LAYER_FILES = st.one_of(
    PLAIN_TARS,
    edited(PLAIN_TARS, 2),
    PLAIN_TARS.map(lambda data: gzip.compress(data, 1, mtime=0)),
    edited(PLAIN_TARS.map(lambda data: gzip.compress(data, 1, mtime=0)), 2),
    st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"\x1f", b"PK\3\4", b"\x1f\x8b\x08\x00" + b"\0" * 6]),
)

# -- disks -------------------------------------------------------------------

_KIB, _MIB = 1024, 1024**2
_HEADERS, _TABLES = (64 * _KIB, 128 * _KIB), (192 * _KIB, 256 * _KIB)
_LOG, _METADATA, _BAT = _MIB, 2 * _MIB, 3 * _MIB


def _disk_fields() -> List[Tuple[int, int]]:
    """Return offset and length of the fields in a file from ``vhdx.create`` with a log entry ([MS-VHDX] 2.2 to 2.6)."""
    fields = [(0, 8)]
    for header in _HEADERS:
        fields += [
            (header + at, size) for at, size in ((0, 4), (8, 8), (16, 16), (48, 16), (64, 2), (66, 2), (68, 4), (72, 8))
        ]
    for table in _TABLES:
        fields += [(table, 4), (table + 8, 4)]
        fields += [
            (table + 16 + 32 * number + at, size)
            for number in (0, 1, 2)
            for at, size in ((0, 16), (16, 8), (24, 4), (28, 4))
        ]
    fields += [
        (_LOG + at, size) for at, size in ((0, 4), (8, 4), (12, 4), (16, 8), (24, 4), (32, 16), (48, 8), (56, 8))
    ]
    fields += [
        (_LOG + 64 + 32 * number + at, size)
        for number in (0, 1)
        for at, size in ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8))
    ]
    fields += [(_LOG + 4096 + at, size) for at, size in ((0, 4), (4, 4), (4092, 4))]
    fields += [(_METADATA, 8), (_METADATA + 10, 2)]
    fields += [
        (_METADATA + 32 + 32 * number + at, size)
        for number in range(6)
        for at, size in ((0, 16), (16, 4), (20, 4), (24, 4))
    ]
    fields += [(_METADATA + 64 * _KIB + at, size) for at, size in ((0, 4), (4, 4), (8, 8), (16, 16), (32, 4), (36, 4))]
    fields += [(_BAT + 8 * number, 8) for number in (0, 1, 20479, 20480)]
    return fields


#: The lengths of the structures that have their own checksum, by offset.
_SUMMED = {**dict.fromkeys(_HEADERS, 4 * _KIB), **dict.fromkeys(_TABLES, 64 * _KIB), _LOG: 8 * _KIB}

_DISK_VALUES = st.one_of(
    st.sampled_from(
        [
            0,
            1,
            2,
            3,
            6,
            7,
            512,
            4095,
            4096,
            _MIB,
            _MIB + 1,
            2 * _MIB,
            3 * _MIB,
            256 * _MIB,
            2**31,
            2**32 - 1,
            2**40,
            2**46,
            2**46 + 2**40,
            2**60,
            2**63,
            2**64 - _MIB,
            2**64 - 1,
        ]
    ),
    st.integers(0, 2**64 - 1),
)
DISK_EDITS = st.tuples(
    st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from(_disk_fields()), st.tuples(st.integers(0, 4 * _MIB - 8), st.sampled_from([1, 8]))
            ),
            _DISK_VALUES,
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([None] * 8 + [0, 7, 8, 4096, 192 * _KIB, _MIB, 2 * _MIB + 5, 3 * _MIB, 4 * _MIB - 1, 9 * _MIB]),
)


def edit_disk(image: bytes, edits: Any) -> bytes:
    """Overwrite fields of a disk file or flip a bit in each, repair checksums if the edits say so, and cut the file."""
    changes, correct, length = edits
    data = bytearray(image)
    for (offset, size), value, flip in changes:
        if flip:
            data[offset + value // 8 % size] ^= 1 << value % 8
        else:
            data[offset : offset + size] = (
                struct.pack("<QQ", value, value)[:size] if size > 8 else struct.pack("<Q", value)[:size]
            )
    if correct:
        for offset, size in _SUMMED.items():
            if any(offset <= start < offset + size for (start, _size), _value, _flip in changes):
                data[offset : offset + size] = with_checksum(bytes(data[offset : offset + size]))
    return bytes(data) if length is None else bytes(data[:length].ljust(length, b"\0"))


# -- metadata ----------------------------------------------------------------

#: Edits of a database file: a bit is flipped, bytes are overwritten, or the file is cut.
DATABASE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "flip", "fill", "cut"]),
        st.one_of(st.integers(0, 120), st.integers(0, 1 << 20)),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def edit_database(data: bytes, edits: List[Tuple[str, int, int]]) -> bytes:
    """Return a database file, or its log, after ``DATABASE_EDITS``."""
    changed = bytearray(data)
    for how, where, value in edits:
        if not changed:
            break
        offset = where % len(changed)
        if how == "flip":
            changed[offset] ^= 1 << value % 8
        elif how == "fill":
            changed[offset : offset + 8] = bytes([value]) * len(changed[offset : offset + 8])
        else:
            del changed[offset:]
    return bytes(changed)


#: These statements make rows that no version of the collection writes. SQLite still finds the database intact.
BAD_ROWS = st.sampled_from(
    [
        "UPDATE snapshots SET labels = '{'",
        "UPDATE snapshots SET labels = '{},{}'",
        "UPDATE snapshots SET labels = '[]'",
        "UPDATE snapshots SET labels = x'ff'",
        "UPDATE snapshots SET created = x'00ff'",
        "UPDATE snapshots SET updated = 5",
        "UPDATE snapshots SET parent = 'missing'",
        "UPDATE snapshots SET parent = name",
        "UPDATE snapshots SET parent = x'6261'",
        "UPDATE snapshots SET name = CAST(x'ff' || CAST(name AS BLOB) AS TEXT) WHERE kind = 'view'",
        "UPDATE snapshots SET id = id + 0.5",
        "UPDATE snapshots SET id = 'x' || id",
        "UPDATE snapshots SET id = -id",
        "UPDATE snapshots SET id = '../../outside' WHERE kind = 'active'",
        "UPDATE snapshots SET id = '../../outside' WHERE kind = 'view'",
        "UPDATE snapshots SET size = 'big'",
        "UPDATE snapshots SET kind = 'other'",
        "DELETE FROM sequence",
        "INSERT INTO sequence VALUES (7)",
        "UPDATE sequence SET last = 'x'",
        "UPDATE sequence SET last = 9223372036854775807",
        "UPDATE sequence SET last = -5",
        "DROP TABLE sequence",
        "DROP TABLE labels",
        "DROP TABLE snapshots",
        "DROP INDEX labels_by_id",
        "ALTER TABLE snapshots DROP COLUMN holder",
        "ALTER TABLE snapshots RENAME COLUMN kind TO sort",
        "CREATE TRIGGER t AFTER INSERT ON snapshots BEGIN SELECT RAISE(ABORT, 'no'); END",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 2",
        "PRAGMA user_version = -1",
        "PRAGMA application_id = 0",
        "PRAGMA application_id = -1",
        "UPDATE snapshots SET holder = 'process 1'",
        "UPDATE snapshots SET holder = 5",
    ]
)
