# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read how the service of the proxy snapshotter is installed.

Each check of a store asks that, on nodes that have no such service, too. Therefore this needs little: the registry of
Windows, in which only administrators can change a service, or the record of a lab node (``emulated``).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Dict, List

from ..errors import FailedPrecondition
from ..files import EMULATED_DRIVES, os_error
from .manager import NAME

_KEY = rf"SYSTEM\CurrentControlSet\Services\{NAME}"
_RECORD = f"services/{NAME}.json"

# The interpreter, its options, and the program stand before the options of the service.
_FIRST_OPTION = 5


def find_options() -> Dict[str, str]:
    """Return the options in the command line of the service by their names, such as ``--root``.

    Empty if there is no service. Raises FailedPrecondition if that cannot be read.
    """
    arguments = _find_arguments()
    return dict(zip(arguments[_FIRST_OPTION::2], arguments[_FIRST_OPTION + 1 :: 2]))


def _find_arguments() -> List[str]:
    try:
        if sys.platform == "win32":
            import winreg

            from ..formats import commandline

            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _KEY) as key:
                return commandline.split(str(winreg.QueryValueEx(key, "ImagePath")[0]))
        if EMULATED_DRIVES not in os.environ:
            # Services exist on nodes and lab nodes only.
            return []
        with open(os.path.join(os.environ[EMULATED_DRIVES], _RECORD), encoding="utf-8") as file:
            return list(json.load(file)["arguments"])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_error(error, f"cannot read how the service {NAME} is installed") from error
    except (ValueError, LookupError) as error:
        raise FailedPrecondition(f"cannot read how the service {NAME} is installed: {error}") from error
