# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""vmcompute.dll: the Host Compute Service's functions on layers.

Prototypes, structures and effects are those of hcsshim (internal/wclayer).
``path`` is the layer directory, ``parents`` the directories of its parents,
nearest first. They are absolute and have no prefix ``\\?\``: a function adds
it if the service needs it.

Every function raises Win32Error, and InvalidArgument for two parents whose
directories have the same name. All need an elevated administrator, except
``name_to_guid`` and ``get_layer_mount_path``; further needs are in the
docstring of each function.
"""

from __future__ import annotations

import ctypes
import ntpath
from typing import Any, Callable, Dict, Optional, Sequence
from uuid import UUID

from ..errors import InvalidArgument
from ..formats.ntfsnames import fold
from . import trace
from .errors import hcs_error, win32_code
from .kernel32 import long_path
from .library import HRESULT, LPCWSTR, PVOID, Guid, Library


class DriverInfo(ctypes.Structure):
    """DRIVER_INFO: the driver that keeps the layer, and the folder that ids are relative to."""

    _fields_ = [("Flavour", ctypes.c_int32), ("HomeDir", LPCWSTR)]


class LayerDescriptor(ctypes.Structure):
    """WC_LAYER_DESCRIPTOR: one parent of a layer."""

    _fields_ = [("LayerId", Guid), ("Flags", ctypes.c_uint32), ("Path", LPCWSTR)]


_DRIVER = ctypes.POINTER(DriverInfo)
_PARENTS = (ctypes.POINTER(LayerDescriptor), ctypes.c_size_t)

DLL = Library(
    "vmcompute.dll",
    "the Windows feature Containers (Install-WindowsFeature Containers)",
    {
        "ActivateLayer": (HRESULT, _DRIVER, LPCWSTR),
        "DeactivateLayer": (HRESULT, _DRIVER, LPCWSTR),
        "PrepareLayer": (HRESULT, _DRIVER, LPCWSTR, *_PARENTS),
        "UnprepareLayer": (HRESULT, _DRIVER, LPCWSTR),
        "ExpandSandboxSize": (HRESULT, _DRIVER, LPCWSTR, ctypes.c_uint64),
        "ExportLayer": (HRESULT, _DRIVER, LPCWSTR, LPCWSTR, *_PARENTS),
        "ImportLayer": (HRESULT, _DRIVER, LPCWSTR, LPCWSTR, *_PARENTS),
        "GetLayerMountPath": (HRESULT, _DRIVER, LPCWSTR, ctypes.POINTER(ctypes.c_size_t), PVOID),
        "NameToGuid": (HRESULT, LPCWSTR, ctypes.POINTER(Guid)),
        "ProcessBaseImage": (HRESULT, LPCWSTR),
        "ProcessUtilityImage": (HRESULT, LPCWSTR),
    },
)

# The filter driver. With an empty home directory, an id is the full path of its layer.
_STANDARD_DRIVER = DriverInfo(1, "")


def activate_layer(path: str) -> None:
    """Attach the ``sandbox.vhdx`` of a layer as a volume; a layer without one is only counted as active.

    Activations are counted: each one needs a ``deactivate_layer``, even if
    later calls fail. The layer directory cannot be renamed while active.
    """
    _layer_call("ActivateLayer", path)


def deactivate_layer(path: str) -> None:
    """Undo one ``activate_layer``. The layer must not be prepared."""
    _layer_call("DeactivateLayer", path, title="DeactivateLayer- failed")


def prepare_layer(path: str, parents: Sequence[str]) -> None:
    """Merge the parents' files into the volume of an activated layer, and grow the volume to the size of its disk.

    Afterwards the merged tree is at ``get_layer_mount_path``. Windows times
    out (1460) if layers are prepared at the same time, in this or another
    process: the caller must serialise the calls.
    """
    _layer_call("PrepareLayer", path, *_descriptors(parents), parents=list(parents))


def unprepare_layer(path: str) -> None:
    """Undo ``prepare_layer``, before ``deactivate_layer``."""
    _layer_call("UnprepareLayer", path)


def expand_sandbox_size(path: str, size: int) -> None:
    """Make the ``sandbox.vhdx`` of a layer at least ``size`` bytes; 0 changes nothing. The layer must not be active.

    The volume inside keeps its size until the layer is prepared or
    ``kernel32.extend_volume`` grows it.
    """
    _layer_call("ExpandSandboxSize", path, size, title="ExpandScratchSize", size=size)


def export_layer(path: str, folder: str, parents: Sequence[str]) -> None:
    """Write the changes of a layer over its parents to an existing folder, in the transport format.

    The layer must have been prepared once, and SeBackupPrivilege must be
    enabled. After an error the folder may hold any part of the layer.
    """
    _layer_call("ExportLayer", path, folder, *_descriptors(parents), folder=folder, parents=list(parents))


def import_layer(path: str, folder: str, parents: Sequence[str]) -> None:
    """Make an existing directory a read-only layer from a folder in the transport format.

    SeBackupPrivilege and SeRestorePrivilege must be enabled. With some updates
    of Windows this never returns (hcsshim issue 2342). After an error the
    directory may hold any part of the layer; importing again replaces it.
    """
    layer = long_path(path)
    _layer_call("ImportLayer", layer, folder, *_descriptors(parents), folder=folder, parents=list(parents))


def get_layer_mount_path(path: str) -> str:
    r"""The path of a layer's files: ``\\?\Volume{<GUID>}\`` if its disk is attached, else its directory.

    The backslash at the end may be missing. Empty if the service knows no path.
    """
    length = ctypes.c_size_t()
    _layer_call("GetLayerMountPath", path, ctypes.byref(length), None, suffix=" (first call)")
    if not length.value:
        return ""
    buffer = ctypes.create_unicode_buffer(length.value)
    _layer_call(
        "GetLayerMountPath", path, ctypes.byref(length), buffer, suffix=" (second call)", tell=lambda: buffer.value
    )
    return buffer.value


def name_to_guid(name: str) -> bytes:
    """The GUID of the service for a layer directory of this name: the 16 ``bytes_le`` of a uuid.UUID.

    Equal names have equal GUIDs, wherever the directories are. Only the
    service knows how the GUID is derived.
    """
    guid = Guid()
    _call("NameToGuid", {"name": name}, name, ctypes.byref(guid), tell=lambda: str(UUID(bytes_le=bytes(guid))))
    return bytes(guid)


def process_base_image(path: str) -> None:
    """Finish a base layer whose ``Files`` is complete: hives, layout, ``blank-base.vhdx`` and ``blank.vhdx``.

    Takes minutes. SeBackupPrivilege and SeRestorePrivilege must be enabled.
    """
    _process_image("ProcessBaseImage", "ProcessBaseLayer", path)


def process_utility_image(path: str) -> None:
    r"""Finish a utility VM, the ``UtilityVM`` of a base layer: make the two ``SystemTemplate`` disks in it.

    ``Files\EFI\Microsoft\Boot\BCD`` must be a valid hive. SeBackupPrivilege and
    SeRestorePrivilege must be enabled.
    """
    _process_image("ProcessUtilityImage", "ProcessUtilityVMImage", path)


def _process_image(export: str, title: str, path: str) -> None:
    directory = long_path(path)
    # hcsshim names the path in the errors of these two functions only (internal/wclayer/processimage.go).
    _call(export, {"path": directory}, directory, title=title, subject=directory)


def _layer_call(
    export: str,
    path: str,
    *native: Any,
    title: str = "",
    suffix: str = "",
    tell: Optional[Callable[[], Any]] = None,
    **arguments: Any,
) -> None:
    """Make a call whose first two arguments are the driver and the layer; ``arguments`` are for the trace."""
    described = {"path": path, **arguments}
    _call(export, described, ctypes.byref(_STANDARD_DRIVER), path, *native, title=title, suffix=suffix, tell=tell)


def _call(
    export: str,
    described: Dict[str, Any],
    *native: Any,
    title: str = "",
    subject: str = "",
    suffix: str = "",
    tell: Optional[Callable[[], Any]] = None,
) -> None:
    """Make one call: ``native`` are its arguments, ``described`` those for the trace, ``tell`` returns its result."""
    with trace.Call(f"vmcompute.{export}", described) as call:
        hresult = DLL.call(export, *native)
        if hresult < 0:
            call.failed = win32_code(hresult)
        elif tell:
            call.result = tell()
    if hresult < 0:
        raise hcs_error(title or export, export, hresult, suffix, subject)


def _descriptors(parents: Sequence[str]) -> Any:
    """The descriptor array of a list of parents, and its length; NULL and 0 for an empty list.

    Windows identifies a layer by the name of its directory alone (hcsshim
    internal/wclayer/layerid.go), so two equal names raise InvalidArgument.
    """
    if not parents:
        return None, 0
    named: Dict[str, str] = {}
    for parent in parents:
        name = fold(ntpath.basename(parent))
        if name in named:
            raise InvalidArgument(
                f"the parent layers {named[name]} and {parent} have the same directory name, but Windows identifies "
                "layers by that name: import one of them again into a directory with another name"
            )
        named[name] = parent
    array = (LayerDescriptor * len(parents))()
    for descriptor, parent in zip(array, parents):
        descriptor.LayerId = Guid.from_buffer_copy(name_to_guid(ntpath.basename(parent)))
        descriptor.Path = parent
    return array, len(parents)
