# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile input gives a clear error or a right answer, in bounded time and memory, and touches only the root.

Every case runs under a guard. An audit hook refuses and records each access to
a file outside the test's directory ``inside``. An alarm ends a case that takes
too long. The address space may grow by at most ``_MEMORY``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import urllib.parse

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door, errors, labels, sizes, snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.files import write_at
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import language
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import re2 as regex
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import ntfsnames
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import (
    creation,
    growth,
    headers,
    log,
    reader,
    replay,
    structures,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx.structures import new_guid
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import filetree
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import store as emulated
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Info
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import METADATA_FILE
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import layer_tar
from ansible_collections.wcow.snapshotter.tests.reliability import strategies
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.posix

_SECONDS = 10
_MEMORY = 512 * 1024**2

#: These codes say what is wrong. ``internal`` means that the code does not expect the error.
_CLEAR = {"not_found", "already_exists", "failed_precondition", "invalid_argument", "unavailable", "not_implemented"}


def cases(count):
    """Return settings for ``count`` cases, without hypothesis' checks of their speed and size.

    With ``WCOW_REPEATED=1`` it is a tenth, because a whole run has tried the same cases (tests/conftest.py).
    """
    if os.environ.get("WCOW_REPEATED") == "1":
        count = max(1, count // 10)
    return settings(max_examples=count, suppress_health_check=list(HealthCheck))


# -- the guard ---------------------------------------------------------------

#: For each audit event, the arguments that are paths, and the argument with the dir_fd of each path, if there is one.
_PATHS = {
    "open": [(0, None)],
    "os.listdir": [(0, None)],
    "os.scandir": [(0, None)],
    "os.truncate": [(0, None)],
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.mkdir": [(0, 2)],
    "os.chmod": [(0, 2)],
    "os.utime": [(0, 3)],
    "os.rename": [(0, 2), (1, 3)],
    "os.link": [(0, 2), (1, 3)],
    "os.symlink": [(1, 2)],
    "sqlite3.connect": [(0, None)],
}
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "socket.connect", "ctypes.dlopen")
_FOLLOWS = ("open", "os.listdir", "os.scandir", "os.truncate", "os.chmod")


class _Watch:
    """The audit hook of this process. A hook cannot be removed, so it is switched on for each case."""

    installed = False
    inside = ""
    violations: list = []
    resolved: dict = {}


def _audit(event, arguments):
    if not _Watch.inside:
        return
    inside, _Watch.inside = _Watch.inside, ""  # the code below raises audit events too
    try:
        for path, handle in _PATHS.get(event, ()):
            _check(event, arguments, path, -1 if handle is None else arguments[handle], inside)
        if event in _FORBIDDEN:
            _refuse(f"{event}: {arguments}")
    finally:
        _Watch.inside = inside


def _check(event, arguments, position, handle, inside):
    path = arguments[position]
    if isinstance(path, int) or path == ":memory:":
        return
    path = os.fsdecode(path)
    if event == "sqlite3.connect" and path.startswith("file:"):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
    # The event for an open does not include the dir_fd. A bare name stays below that directory.
    if event == "open" and not os.path.isabs(path) and os.sep not in path and path != "..":
        return
    if handle != -1:
        path = os.path.join(os.readlink(f"/proc/self/fd/{handle}"), path)
    if event in ("os.symlink", "os.rename"):
        _Watch.resolved.clear()
    directory, name = os.path.split(path)
    real = os.path.join(_resolve(directory), name)
    if event in _FOLLOWS:
        real = os.path.realpath(path) if os.path.islink(real) or name in ("..", ".") else real
    reads = event in ("os.listdir", "os.scandir") or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if reads and any(real == each or real.startswith(os.path.join(each, "")) for each in _interpreter()):
        return
    if real != inside and not real.startswith(inside + os.sep):
        _refuse(f"{event}: {path}")


def _resolve(directory):
    """Return ``os.path.realpath``, with a cache. Without it, a path below 2,000 nested directories costs too much."""
    above, name = os.path.split(directory)
    if above not in _Watch.resolved or name in ("", ".", "..") or os.path.islink(directory):
        _Watch.resolved[directory] = os.path.realpath(directory)
    else:
        _Watch.resolved[directory] = os.path.join(_Watch.resolved[above], name)
    return _Watch.resolved[directory]


def _interpreter():
    """Return the paths from which modules are imported."""
    return [os.path.realpath(each) for each in sys.path if each] + ["/proc/self", f"/proc/{os.getpid()}"]


def _refuse(what):
    _Watch.violations.append(what)
    raise PermissionError(f"outside the test's directory: {what}")


class Enclosure:
    """The directory ``inside``, the directory ``outside`` next to it that must not change, and the guard."""

    def __init__(self, top):
        self.inside = os.path.join(os.path.realpath(top), "inside")
        self.outside = os.path.join(os.path.realpath(top), "outside")
        self.cases = 0
        os.mkdir(self.inside)
        os.mkdir(self.outside)
        for name in ("kept", "passwd"):
            with open(os.path.join(self.outside, name), "w", encoding="ascii") as file:
                file.write(name * 100)
        self.before = self.neighbours()

    def neighbours(self):
        """Return name, inode, times and hash of everything next to ``inside``."""
        found = []
        for directory, _names, files in os.walk(self.outside):
            for path in [directory, *(os.path.join(directory, name) for name in files)]:
                status = os.lstat(path)
                content = b""
                if path != directory:
                    with open(path, "rb") as file:
                        content = file.read()
                found.append(
                    (path, status.st_ino, status.st_mode, status.st_mtime_ns, hashlib.sha256(content).digest())
                )
        return found, sorted(os.listdir(os.path.dirname(self.inside)))

    @contextlib.contextmanager
    def case(self):
        """Count one case and run it under the guard."""
        import resource

        self.cases += 1
        _Watch.violations = []
        _Watch.resolved = {}
        limits = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", encoding="ascii") as file:
            present = int(file.read().split()[0]) * resource.getpagesize()
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (present + _MEMORY, limits[1]))
        _Watch.inside = self.inside
        try:
            yield
        finally:
            _Watch.inside = ""
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, limits)
        assert not _Watch.violations


class TooSlow(BaseException):
    """This is not an Exception, so that no code under test handles it as an error of the input."""


def _too_slow(_signal, _frame):
    raise TooSlow(f"a case took more than {_SECONDS} s")


@pytest.fixture
def enclosure(tmp_path, figures):
    if not _Watch.installed:
        sys.addaudithook(_audit)
        _Watch.installed = True
    made = Enclosure(tmp_path)
    previous = signal.signal(signal.SIGALRM, _too_slow)
    yield made
    signal.signal(signal.SIGALRM, previous)
    # A failed case may leave directories that are nested too deep for pytest to remove.
    filetree.remove(made.inside)
    os.mkdir(made.inside)
    assert made.neighbours() == made.before
    figures(generated_cases=made.cases, losses=0)


def clear(error, *parts):
    """Assert that an error says what is wrong. If there are ``parts``, the message must contain one of them."""
    assert error.code in _CLEAR, error.message
    assert 10 < len(error.message) < 100_000
    assert not parts or any(part in error.message for part in parts), error.message
    json.dumps(error.details)


def test_the_guard_sees_what_leaves_the_enclosure(enclosure, tmp_path):
    for escape in (
        lambda: open(os.path.join(enclosure.outside, "kept"), "a", encoding="ascii"),
        lambda: open(os.path.join(enclosure.outside, "kept"), encoding="ascii"),
        lambda: os.unlink(os.path.join(enclosure.inside, "..", "outside", "kept")),
        lambda: os.rename(os.path.join(enclosure.inside, "x"), os.path.join(enclosure.outside, "x")),
        lambda: os.mkdir(os.path.join(enclosure.inside, "link", "new")),
        lambda: sqlite3.connect(f"file:{enclosure.outside}/new", uri=True),
        lambda: os.system("true"),
    ):
        if not os.path.islink(os.path.join(enclosure.inside, "link")):
            os.symlink(enclosure.outside, os.path.join(enclosure.inside, "link"))
        with pytest.raises(AssertionError), enclosure.case(), contextlib.suppress(PermissionError):
            escape()
    with pytest.raises(MemoryError), enclosure.case():
        bytearray(2 * _MEMORY)


# -- the door ----------------------------------------------------------------


@cases(4000)
@given(request=strategies.requests("/inside"))
def test_a_request_is_taken_apart_or_refused(enclosure, request):
    with enclosure.case():
        try:
            parsed = door.parse_request(request)
        except errors.InvalidArgument as error:
            clear(error)
            return
    assert parsed.root
    assert len(parsed.operations) == len(parsed.problems) > 0
    for (name, arguments), problem in zip(parsed.operations, parsed.problems):
        if problem:
            clear(problem)
        else:
            assert set(arguments) <= set(door.OPERATIONS[name].arguments)
            assert None not in arguments.values()


@cases(1500)
@given(data=st.data())
def test_a_request_gets_a_clear_reply(enclosure, data):
    # A new store for each case would take too long. It is part of the test that cases see what earlier ones left.
    if not enclosure.cases:
        with open(os.path.join(enclosure.inside, "file"), "wb") as file:
            file.write(b"no tar")
    request = data.draw(strategies.requests(enclosure.inside))
    # A request may name any directory as its root. That is not an escape.
    assume(all(_is_inside(path, enclosure.inside) for path in _paths(request)))
    out = io.BytesIO()
    environment = dict(os.environ)
    try:
        with enclosure.case():
            assert door.serve(request, io.BytesIO(b"AAAA\n"), out) == 0
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
    assert out.getvalue().endswith(b"\n")
    assert out.getvalue().isascii()
    reply = json.loads(out.getvalue())
    replies = [reply] if "error" in reply else reply["results"]
    assert replies
    for each in replies:
        if not each.get("ok"):
            assert each["error"]["code"] in _CLEAR, each
            assert len(each["error"]["message"]) > 10


def _paths(request):
    """Return the texts of a request that may be absolute paths."""
    try:
        parsed = door.parse_request(request)
    except errors.InvalidArgument:
        return []
    values = [value for _name, arguments in parsed.operations for value in arguments.values()]
    return [text for text in [parsed.root, *values] if isinstance(text, str) and os.path.isabs(text)]


def _is_inside(path, inside):
    return os.path.normpath("/" + path.lstrip("/")).startswith(inside + os.sep)


# -- labels, sizes, filters --------------------------------------------------


@cases(2500)
@given(given_labels=strategies.LABEL_MAPS)
@example(given_labels={"\ud800": ""})
def test_labels_are_read_as_go_reads_them_or_refused(enclosure, given_labels):
    with enclosure.case():
        try:
            labels.validate(given_labels)
            options = labels.scratch_options(given_labels)
        except errors.InvalidArgument as error:
            clear(error)
            return
    numbers = {key: given_labels.get(key) for key in (labels.ROOTFS_SIZE_GB, labels.ROOTFS_SIZE_BYTES)}
    assert all(text is None or re.fullmatch("[0-9]+", text) for text in numbers.values())
    size = int(numbers[labels.ROOTFS_SIZE_GB] or 0) * 1024**3
    if numbers[labels.ROOTFS_SIZE_BYTES] is not None:
        size = int(numbers[labels.ROOTFS_SIZE_BYTES])
    assert options.size == size < 1 << 64
    assert options.uvm == (labels.UVM_SCRATCH in given_labels)
    for key, value in given_labels.items():
        assert len((key + value).encode()) <= labels.MAXIMUM_LENGTH


@cases(2500)
@given(value=strategies.SIZES)
@example(value="a" * 5000)
def test_a_size_is_read_or_refused(enclosure, value):
    with enclosure.case():
        try:
            size = sizes.parse_size(value, "rootfs_size")
        except errors.InvalidArgument as error:
            clear(error, "rootfs_size")
            return
    assert 0 < size <= sizes.MAXIMUM_DISK_SIZE
    if isinstance(value, str):
        number, unit = re.fullmatch(r"\s*([0-9]+) ?([A-Za-z]*)\s*", value).groups()
        power = " KMGT".index((unit.upper().rstrip("B").rstrip("I") or " ")[0])
        value = int(number) * 1024**power
    assert size == value


_INFOS = [
    Info("committed", "base", "", {}, "2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00.000000000Z", 1),
    Info("active", "one", "base", {"a": "1", "a.b_1": ""}, "", "", 2),
    Info("view", "\u00e4/\U0001f600", "base", {"": "x", "name": "one"}, "", "", 3),
]


def _expected(condition, info):
    """Return whether a snapshot matches a condition by the definition of the language."""
    field, *rest = condition.fieldpath
    key = ".".join(rest)
    known = {"kind": info.kind, "name": info.name, "parent": info.parent}
    if field == "labels":
        known = {"labels": info.labels[key]} if key in info.labels else {}
    value, present = known.get(field, ""), field in known
    return {"": present, "==": present and value == condition.value, "!=": value != condition.value}[condition.operator]


@cases(2500)
@given(conditions=strategies.CONDITIONS, space=st.sampled_from(["", " ", "\t \u3000"]))
def test_a_filter_says_what_it_was_written_for(enclosure, conditions, space):
    text = strategies.filter_text(conditions, space)
    with enclosure.case():
        found = language.parse_all([text])
        assert [tuple(selector) for selector in found.filters[0].selectors] == [tuple(each) for each in conditions]
        matching = [info for info in _INFOS if found.matches(language.snapshot_adaptor(info))]
    if all(condition.operator != "~=" for condition in conditions):
        assert matching == [info for info in _INFOS if all(_expected(each, info) for each in conditions)]


@cases(3000)
@given(text=strategies.FILTER_SOUP)
@example(text="name~=|\\Uffffffff|")
def test_any_text_is_a_filter_or_refused(enclosure, text):
    with enclosure.case():
        try:
            found = language.parse_all([text])
        except errors.InvalidArgument as error:
            clear(error)
            return
        for info in _INFOS:
            found.matches(language.snapshot_adaptor(info))
        assert all(isinstance(warning, str) for warning in found.warnings())


@cases(1500)
@given(pattern=strategies.PATTERNS, subject=strategies.SUBJECTS)
def test_any_text_is_a_pattern_or_refused(enclosure, pattern, subject):
    with enclosure.case():
        try:
            compiled = regex.compile(pattern)
        except regex.RegexError as error:
            message = str(error)
        else:
            message = ""
        if message:
            assert message.startswith("error parsing regexp: ")
            return
        answer = compiled.search(subject)
        assert answer is compiled.search(subject)
        # A pattern without anchors that matches a text also matches it with more text around it.
        if answer and not set(pattern) & set("$\\^"):
            assert compiled.search("x" + subject + "\nx")


# -- layer tars --------------------------------------------------------------


def _entries(data):
    reader = layertar.LayerReader(layertar.open_layer(io.BytesIO(data)))
    return reader, [(entry, b"".join(iter(reader.read, b""))) for entry in reader]


@cases(3000)
@given(data=strategies.LAYER_FILES)
@example(data=strategies.DEEP_TAR)
def test_a_tar_is_read_whole_or_refused(enclosure, data):
    with enclosure.case():
        try:
            reader, entries = _entries(data)
        except errors.InvalidArgument as error:
            clear(error)
            return
    assert reader.entries == len(entries)
    for entry, content in entries:
        parts = entry.name.split("/")
        assert parts[0] in ("Files", "Hives", "UtilityVM")
        assert not [part for part in parts if ntfsnames.fault(part)]
        assert len(content) == entry.size
    names = [
        ntfsnames.fold(entry.name) for entry, _content in entries if entry.kind in (layertar.FILE, layertar.SYMLINK)
    ]
    assert len(names) == len(set(names))


@cases(400)
@given(data=strategies.LAYER_FILES, over=st.booleans())
@example(data=strategies.DEEP_TAR, over=False)
@example(data=strategies.BELOW_WHITEOUT_TAR, over=False)
def test_an_import_is_whole_or_leaves_nothing(enclosure, data, over):
    layers = emulated.EmulatedLayers()
    base = os.path.join(enclosure.inside, "base")
    if not os.path.isdir(base):
        os.mkdir(base)
        layers.import_layer(base, [], io.BytesIO(_BASE))
        # A hard link or a utility VM of the child could follow this link of the parent.
        os.symlink(enclosure.outside, os.path.join(base, "UtilityVM", "Files", "dir"))
    layer = os.path.join(enclosure.inside, "layer")
    again = layer + "2"
    for left in (layer, again):
        # A failed case may have left this directory. Its replay must fail for the same reason.
        shutil.rmtree(left, ignore_errors=True)
    os.mkdir(layer)
    with enclosure.case():
        try:
            result = layers.import_layer(layer, [base] if over else [], layertar.open_layer(io.BytesIO(data)))
        except errors.SnapshotterError as error:
            clear(error)
            assert os.listdir(layer) == []
        else:
            assert result.entries
            first = io.BytesIO()
            layers.export_layer(layer, [base] if over else [], first)
            os.mkdir(again)
            layers.import_layer(again, [base] if over else [], io.BytesIO(first.getvalue()))
            second = io.BytesIO()
            layers.export_layer(again, [base] if over else [], second)
            assert second.getvalue() == first.getvalue()
            layers.destroy(again)
        layers.destroy(layer)
    assert sorted(os.listdir(enclosure.inside)) == ["base"]


_BASE = layer_tar(
    ("Files", "directory"),
    ("Files/dir", "directory"),
    ("Files/dir/a", b"base"),
    ("UtilityVM", "directory"),
    ("UtilityVM/Files", "directory"),
)

# -- disks -------------------------------------------------------------------


def _disk_images(directory):
    """Return a plain disk, and a disk whose growth ended before its log was replayed."""
    plain = os.path.join(directory, "plain.vhdx")
    creation.create(plain, 20 * 1024**3)
    with open(plain, "rb") as file:
        image = file.read()
    with open(plain, "r+b", buffering=0) as file:
        disk = reader.load_stable(file, plain)
        updates = log.sector_updates(file, [(disk.virtual_size_position, (21 * 1024**3).to_bytes(8, "little"))])
        guid = new_guid()
        write_at(file, disk.header.log_offset, log.log_entry_bytes(updates, guid, disk.info.file_size))
        header = headers.write_header(file, disk.header, log_guid=guid)
        headers.write_header(file, header, log_guid=guid)
    with open(plain, "rb") as file:
        pending = file.read()
    os.unlink(plain)
    return _Images((image, pending))


class _Images(tuple):
    """Files in memory. A failure report must not print them."""

    __slots__ = ()

    def __repr__(self):
        return f"<{len(self)} disk images>"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return _disk_images(str(tmp_path_factory.mktemp("disks")))


def _sound(info):
    assert 0 <= info.virtual_size <= structures.MAX_VIRTUAL_SIZE
    assert info.virtual_size % info.logical_sector_size == 0
    assert info.block_size in [1024**2 << shift for shift in range(9)]
    assert info.disk_type in (structures.FIXED, structures.DYNAMIC, structures.DIFFERENCING)


@cases(2500)
@given(which=st.sampled_from([0, 1]), edits=strategies.DISK_EDITS)
def test_a_disk_is_understood_or_refused(enclosure, images, which, edits):
    image = strategies.edit_disk(images[which], edits)
    with enclosure.case():
        try:
            info = reader.read_info(io.BytesIO(image))
        except errors.SnapshotterError as error:
            clear(error, "the file")
            return
    _sound(info)
    assert info.file_size == len(image)


@cases(400)
@given(
    which=st.sampled_from([0, 1]),
    edits=strategies.DISK_EDITS,
    size=st.sampled_from([0, 22 * 1024**3, 200 * 1024**3, 64 * 1024**4]),
)
def test_a_damaged_disk_grows_or_stays_as_it_is(enclosure, images, which, edits, size):
    path = os.path.join(enclosure.inside, "disk.vhdx")
    image = strategies.edit_disk(images[which], edits)
    with open(path, "wb") as file:
        file.write(image)
    with enclosure.case():
        try:
            before = reader.read_info(path)
        except errors.SnapshotterError as error:
            clear(error)
            before = None
        try:
            if size:
                growth.grow(path, size)
            else:
                replay.replay_log(path)
            after = reader.read_info(path)
            assert not after.log_pending or 0 < size <= before.virtual_size
            assert after.virtual_size == max(size, before.virtual_size)
        except errors.SnapshotterError as error:
            clear(error, path, "invalid disk size")
            if before is None:
                with open(path, "rb") as file:
                    assert file.read() == image
            else:
                assert reader.read_info(path).virtual_size == before.virtual_size
        else:
            assert before is not None
            assert after.disk_id == before.disk_id
            _sound(after)
    os.unlink(path)


# -- metadata ----------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a directory with a store whose last changes are only in the write-ahead log, as after a crash."""
    top = tmp_path_factory.mktemp("store")
    root = os.path.join(str(top), "live")
    opened = snapshotter.Snapshotter(root, emulated.EmulatedLayers())
    opened.prepare("making", "", {"containerd.io/snapshot/x": "1"})
    opened.commit("base", "making", {"a": "1"})
    opened.prepare("one", "base", {"a": "1", "b": "2"})
    opened.view("two", "base", {"c": "3"})
    kept = os.path.join(str(top), "kept")
    shutil.copytree(root, kept, copy_function=os.link)
    for name in (METADATA_FILE, METADATA_FILE + "-wal"):
        os.unlink(os.path.join(kept, name))
        shutil.copy(os.path.join(root, name), os.path.join(kept, name))
    os.unlink(os.path.join(kept, METADATA_FILE + "-shm"))
    opened.close()
    return kept


#: The names that snapshots have at any point in the log.
_KNOWN = {"making", "base", "one", "two"}


def _use(root):
    """Read the whole store and change it. Each answer is right, or is a clear error."""
    opened = snapshotter.Snapshotter(root, emulated.EmulatedLayers())
    walked = None
    actions = [
        opened.walk,
        lambda: opened.walk("kind==active", "labels.a==1", "name~=^b"),
        *(lambda key=key: opened.stat(key) for key in sorted(_KNOWN)),
        lambda: opened.mounts("one"),
        lambda: opened.children("base"),
        lambda: opened.usage("base"),
        lambda: opened.view("new", "base", {"d": "4"}),
        lambda: opened.update("one", {"e": "5"}, ["labels.e"]),
        lambda: opened.remove("two"),
        lambda: opened.commit("layer", "one"),
    ]
    try:
        for number, action in enumerate(actions):
            try:
                answer = action()
            except errors.SnapshotterError as error:
                clear(error)
            else:
                json.dumps(answer)
                if number == 0:
                    walked = answer
    finally:
        opened.close()
    return walked


def _restore(store, root):
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(store, root, copy_function=os.link)
    for name in (METADATA_FILE, METADATA_FILE + "-wal"):
        os.unlink(os.path.join(root, name))
        shutil.copy(os.path.join(store, name), os.path.join(root, name))


@cases(500)
@given(name=st.sampled_from(["", "", "-wal"]), edits=strategies.DATABASE_EDITS)
def test_damaged_metadata_is_refused_or_read(enclosure, store, name, edits):
    root = os.path.join(enclosure.inside, "root")
    _restore(store, root)
    path = os.path.join(root, METADATA_FILE + name)
    with open(path, "rb") as file:
        changed = strategies.edit_database(file.read(), edits)
    with open(path, "wb") as file:
        file.write(changed)
    with enclosure.case():
        walked = _use(root)
    if name == "-wal" and walked is not None:
        # The log has checksums. SQLite ignores a damaged part and everything after it.
        assert {info.name for info in walked} <= _KNOWN


@cases(200)
@given(statements=st.lists(strategies.BAD_ROWS, min_size=1, max_size=2))
@example(statements=["UPDATE snapshots SET id = '../../outside' WHERE kind = 'view'"])
@example(statements=["UPDATE snapshots SET parent = name"])
def test_metadata_that_no_release_wrote_is_refused_or_read(enclosure, store, statements):
    root = os.path.join(enclosure.inside, "root")
    _restore(store, root)
    with contextlib.closing(sqlite3.connect(os.path.join(root, METADATA_FILE))) as database:
        for statement in statements:
            with contextlib.suppress(sqlite3.Error), database:
                database.execute(statement)
    with enclosure.case():
        _use(root)


_ENDLESS = "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c)"

#: What another program did to the metadata, and a part of the sentence that a walk ends with ("" where it succeeds).
_FOREIGN = {
    "a view without an end": (
        (
            "CREATE TABLE t AS SELECT * FROM snapshots; DROP TABLE snapshots;"
            f"CREATE VIEW snapshots AS SELECT t.* FROM t, {_ENDLESS}"
        ),
        "changed its schema ('snapshots')",
    ),
    "a trigger without an end": (
        f"CREATE TRIGGER t BEFORE UPDATE ON snapshots BEGIN SELECT count(*) FROM {_ENDLESS}; END",
        "changed its schema ('t')",
    ),
    "a trigger that adds records": (
        (
            "CREATE TRIGGER t AFTER DELETE ON snapshots BEGIN INSERT INTO snapshots VALUES "
            "('ghost', old.id, 'committed', NULL, '', '', '{}', 0, 0, NULL); END"
        ),
        "changed its schema ('t')",
    ),
    "a table more": ("CREATE TABLE t (x)", "changed its schema ('t')"),
    "a table less": ("DROP TABLE settings", "changed its schema ('settings')"),
    "a column more": ("ALTER TABLE settings ADD COLUMN x", "changed its schema ('settings')"),
    "an index less": ("DROP INDEX labels_by_id", "changed its schema ('labels_by_id')"),
    "an id below 1": ("UPDATE snapshots SET id = -5 WHERE name = 'one'", "an id or a kind that does not exist"),
    "an id that is a path": ("UPDATE snapshots SET id = '../..' WHERE name = 'one'", "a value of the wrong type"),
    "another kind": ("UPDATE snapshots SET kind = 'other'", "an id or a kind that does not exist"),
    "a name that is too long": (
        "UPDATE snapshots SET name = printf('%.9999c', 'x') WHERE name = 'one'",
        "a name that is too long",
    ),
    "a name that is not a text": (
        "UPDATE snapshots SET name = x'00ff' WHERE name = 'one'",
        "a value of the wrong type",
    ),
    "labels that are not texts": ("""UPDATE snapshots SET labels = '{"a":[1]}'""", "a value is not a text"),
    "labels that are nested": (
        """UPDATE snapshots SET labels = '{"a":' || replace(printf('%.99999c', '['), ' ', '[') || '}'""",
        "labels cannot be read",
    ),
    "labels that complete each other": (
        (
            """UPDATE snapshots SET labels = '{"x":"}' WHERE name = 'base';"""
            """UPDATE snapshots SET labels = '{"},{"y":"z"}' WHERE name = 'one'"""
        ),
        "labels cannot be read",
    ),
    "labels that complete each other in an object": (
        (
            """UPDATE snapshots SET labels = '{"x":{}' WHERE name = 'base';"""
            """UPDATE snapshots SET labels = '{}},{"y":"z"}' WHERE name = 'one'"""
        ),
        "labels cannot be read",
    ),
    "labels that are not UTF-8": (
        "UPDATE snapshots SET labels = CAST(x'7b2261223a22ff227d' AS TEXT) WHERE name = 'one'",
        "is damaged (Could not decode",
    ),
    "labels without an end": (
        "UPDATE snapshots SET labels = CAST(zeroblob(50000000) AS TEXT) WHERE id = 2",
        "is damaged",
    ),
    "a file without an end": (
        "PRAGMA journal_mode = DELETE; CREATE TABLE t AS SELECT zeroblob(140000000)",
        "but the metadata of a store has at most",
    ),
    "two sequences": ("INSERT INTO sequence VALUES (99)", "the id that was given out last is not recorded"),
    "a sequence that is a text": ("UPDATE sequence SET last = 'x'", "the id that was given out last is not recorded"),
    "a sequence at its end": ("UPDATE sequence SET last = 9223372036854775807", ""),
    "a usage that is a text": ("UPDATE snapshots SET size = 'x'", ""),
    "a setting that is a text": ("INSERT INTO settings VALUES ('rootfs_size', '\u0663x')", ""),
    "a cycle": ("UPDATE snapshots SET parent = name", ""),
}


@pytest.mark.parametrize("what", _FOREIGN)
def test_metadata_that_another_program_changed(enclosure, store, what):
    statements, expected = _FOREIGN[what]
    root = os.path.join(enclosure.inside, "root")
    _restore(store, root)
    path = os.path.join(root, METADATA_FILE)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.executescript(statements)
    before = _content(path)
    with enclosure.case():
        opened = snapshotter.Snapshotter(root, emulated.EmulatedLayers())
        try:
            if expected:
                with pytest.raises(errors.Damaged, match=re.escape(expected)):
                    opened.walk()
            else:
                opened.walk()
        finally:
            opened.close()
        _use(root)
    if "schema" in expected or "file" in what:
        assert _content(path) == before
    request = {"protocol": 1, "root": root, "layers": "emulated", "on_error": "continue"}
    request["operations"] = [
        {"operation": "check", "arguments": {"inventory": True}},
        {"operation": "ensure_store", "arguments": {"state": "present"}},
        {"operation": "ensure_snapshot", "arguments": {"state": "active", "key": "next", "labels": {"a": "b"}}},
        {"operation": "ensure_store", "arguments": {"state": "absent", "force": True}},
    ]
    with enclosure.case():
        for result in door.handle(json.dumps(request).encode())["results"]:
            assert result["ok"] or result["error"]["code"] in _CLEAR, result


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_query_that_does_not_end_is_interrupted(enclosure):
    opened = file.Metastore(os.path.join(enclosure.inside, METADATA_FILE), create=True)
    with enclosure.case(), pytest.raises(errors.Damaged, match="a query on it does not end"), opened.read() as tx:
        tx._db.execute(f"SELECT count(*) FROM {_ENDLESS}").fetchone()
    with opened.read() as tx:
        assert tx.id_map() == {}
    opened.close()


@cases(100)
@given(
    what=st.sampled_from(["directory", "empty", "text", "link", "loop", "fifo"]),
    where=st.sampled_from(["", "-wal", "-shm"]),
)
def test_something_else_in_the_place_of_metadata(enclosure, store, what, where):
    root = os.path.join(enclosure.inside, "root")
    _restore(store, root)
    path = os.path.join(root, METADATA_FILE + where)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    if what == "directory":
        os.mkdir(path)
    elif what == "link":
        os.symlink(os.path.join(enclosure.outside, "absent"), path)
    elif what == "loop":
        os.symlink(path, path)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        with open(path, "wb") as file:
            file.write(b"not a database " * 100 if what == "text" else b"")
    with enclosure.case():
        _use(root)
