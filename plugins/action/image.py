# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of an image are snapshots, or are removed: ``ensure_image``; ``ensure_layer`` for those that are sent."""

from __future__ import annotations

from typing import Any, Dict, List

from ..module_utils.core.errors import SnapshotterError
from ..module_utils.core.formats import ociimage
from ..plugin_utils._action import SnapshotterAction, TaskFailure, given
from ..plugin_utils._upload import send


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/image.py."""

    module = "wcow.snapshotter.image"
    operation = "ensure_image"
    returned = ("chain_id", "chain", "config", "os_version", "kept", "actions")
    options = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "src": {"type": "str"},
        "remote_src": {"type": "bool", "default": False},
        "platform": {"type": "str", "default": "windows/amd64"},
        "reference": {"type": "str"},
        "os_version": {"type": "str"},
        "labels": {"type": "dict"},
        "chain_id": {"type": "str"},
    }
    required_if = (
        ("state", "present", ("src",)),
        ("state", "absent", ("src", "chain_id"), True),
    )

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {name: value for name, value in given(options).items() if name != "remote_src"}
        if options["remote_src"] or not options["src"]:
            return self.ask(self.operation, arguments)
        path = self._find_needle("files", options["src"])
        try:
            return self._from_here(path, arguments)
        except SnapshotterError as error:
            raise TaskFailure(error.code, f"{path}: {error.message}", error.details) from None
        except OSError as error:
            raise TaskFailure("failed_precondition", f"Cannot read {path} on the controller: {error}") from None

    def _from_here(self, path: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
        """Tell the node what there is to choose from, and send what it lacks of its choice, layer by layer."""
        images = ociimage.read_images(path, arguments["platform"], arguments.get("reference", ""))
        offered = [
            {
                "config": image.config,
                "os_version": image.os_version,
                "diff_ids": [layer.diff_id for layer in image.layers],
            }
            for image in images
        ]
        arguments["src"] = {"images": offered}
        plan = self.ask(self.operation, arguments, check_mode=True)
        chain = plan["result"]["chain"]
        image = next(image for image in images if image.config == plan["result"]["config"])
        missing = [number for number, link in enumerate(chain) if link["imported"]]
        blobs = [ociimage.blob_of(image.layers[number], _name(chain, number)) for number in missing]
        if self._task.check_mode or not plan["changed"]:
            return plan
        if not missing:
            return self.ask(self.operation, arguments)
        for number, blob in zip(missing, blobs):
            self._import(image.layers[number], blob, chain, number, arguments.get("labels"))
        return plan

    def _import(
        self, layer: ociimage.Layer, blob: ociimage.Extent, chain: List[Dict[str, Any]], number: int, labels: Any
    ) -> None:
        """Send one layer and make it a snapshot. The node keeps what was sent only until then."""
        with ociimage.BlobReader(blob) as reader:
            digest = reader.finish(layer, _name(chain, number))
        with open(blob.path, "rb") as file:
            send(file, blob.offset, blob.size, digest, self.ask)
        link = chain[number]
        wanted = {"name": link["name"], "parent": link["parent"], "digest": link["diff_id"], "src": {"staged": digest}}
        if labels and number == len(chain) - 1:
            wanted["labels"] = labels
        try:
            self.ask("ensure_layer", wanted)
        except TaskFailure as failure:
            raise TaskFailure(failure.code, f"{_name(chain, number)}: {failure}", failure.details) from None


def _name(chain: List[Dict[str, Any]], number: int) -> str:
    return f"layer {number + 1} of {len(chain)} ({chain[number]['diff_id']})"
