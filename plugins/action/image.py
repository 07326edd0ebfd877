# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure that the layers of an image are snapshots, or remove them (``ensure_image``, ``ensure_layer``)."""

from __future__ import annotations

import io
from typing import Any, Dict, List, Sequence

from ..module_utils.core.errors import SnapshotterError
from ..module_utils.core.files import only_files
from ..module_utils.core.formats import imagepackage, ociimage
from ..plugin_utils._action import SnapshotterAction, TaskFailure, drop_unset
from ..plugin_utils._reply import unusable
from ..plugin_utils._shapes import Malformed
from ..plugin_utils._upload import check_source, import_layer, send, send_repacked
from ..plugin_utils._zstd import codec


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/image.py."""

    module = "wcow.snapshotter.image"
    operation = "ensure_image"
    stores = ("own", "containerd")
    returned = (
        *("chain_id", "chain", "config", "os_version", "names", "kept", "actions"),
        *("manifest", "images", "freed", "containerd"),
    )
    options = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "src": {"type": "str"},
        "remote_src": {"type": "bool", "default": False},
        "platform": {"type": "str", "default": "windows/amd64"},
        "reference": {"type": "str"},
        "os_version": {"type": "str"},
        "labels": {"type": "dict"},
        "chain_id": {"type": "str"},
        "names": {"type": "list", "elements": "str"},
        "pinned": {"type": "bool"},
        "unpack": {"type": "bool"},
    }
    required_if = (
        ("state", "present", ("src",)),
        ("state", "absent", ("src", "chain_id", "names"), True),
    )

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {name: value for name, value in drop_unset(options).items() if name != "remote_src"}
        # False is not the default of these.
        arguments.update({name: options[name] for name in ("pinned", "unpack") if options[name] is not None})
        # The node has the message about an empty src.
        if options["remote_src"] or not (options["src"] or "").strip():
            return self.ask(self.operation, arguments)
        check_source(options["src"])
        path = self._find_needle("files", options["src"])
        send = self._send_to_containerd if self.store == "containerd" else self._import_from_controller
        try:
            return send(path, arguments)
        except SnapshotterError as error:
            raise TaskFailure(error.code, f"{path}: {error.message}", error.details) from None
        except OSError as error:
            raise TaskFailure(
                "failed_precondition", f"Cannot read {path} on the controller: {error.strerror}"
            ) from None

    def _import_from_controller(self, path: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
        """Offer the node the images, and send the missing layers of its choice one by one."""
        images = ociimage.read_images(path, arguments["platform"], arguments.get("reference", ""))
        arguments["src"] = {"images": [_offer(image) for image in images]}
        plan = self.ask(self.operation, arguments, check_mode=True)
        chain = plan["result"]["chain"]
        image = chosen(images, plan["result"])
        missing = [number for number, link in enumerate(chain) if link["imported"]]
        can_zstd = codec() is not None
        blobs = [ociimage.blob_of(image.layers[number], _name(chain, number), can_zstd) for number in missing]
        if self._task.check_mode or not plan["changed"]:
            return plan
        if not missing:
            return self.ask(self.operation, arguments)
        # From here on, the result tells what this task does. Other tasks can import the same layers meanwhile.
        updates = [action for action in plan["result"]["actions"] if action.startswith("update ")]
        actions = plan["result"]["actions"] = []
        for number, blob in zip(missing, blobs):
            name = chain[number]["name"]
            # The node knows which labels a layer gets.
            labels = plan["result"]["diff"]["after"][name]["labels"]
            done = self._import(image.layers[number], blob, chain, number, labels)
            actions += done["actions"]
            chain[number]["imported"] = f"import {name}" in done["actions"]
            for side, snapshots in plan["result"]["diff"].items():
                found = done["diff"][side].get(name)
                if found:
                    snapshots[name] = {key: found[key] for key in ("kind", "parent", "labels")}
        if updates:
            # Layers that were there lack a label.
            actions += self.ask(self.operation, arguments)["result"]["actions"]
        return {**plan, "changed": bool(actions)}

    def _send_to_containerd(self, path: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
        """Offer the node the images, send the blobs of its choice that it does not have, and let it do the rest."""
        images = ociimage.read_images(path, arguments["platform"], arguments.get("reference", ""))
        if arguments["state"] == "absent":
            arguments["src"] = {"images": [_offer(image) for image in images]}
            return self.ask(self.operation, arguments)
        packages = {image.config: imagepackage.package_of(image) for image in images}
        offered = [{**_offer(image), **imagepackage.as_object(packages[image.config])} for image in images]
        arguments["src"] = {"images": offered}
        plan = self.ask(self.operation, arguments, check_mode=True)
        missing = plan["result"]["missing"]
        parts = [part for part in packages[chosen(images, plan["result"]).config].parts() if part.digest in missing]
        for part in parts:
            part.require()
        if self._task.check_mode or not plan["changed"]:
            return plan
        # All pieces belong in the namespace of the plan.
        self._node["namespace"] = plan["result"]["containerd"]["namespace"]
        for part in parts:
            self._send_part(part)
        done = self.ask(self.operation, arguments)
        # The node found in place what was sent. Other tasks can have done the rest meanwhile.
        did = set(done["result"]["actions"])
        actions = [action for action in plan["result"]["actions"] if action in did or action.startswith("send ")]
        done["result"]["actions"] = actions if done["changed"] else []
        done["result"]["diff"]["before"] = plan["result"]["diff"]["before"]
        return done

    def _send_part(self, part: imagepackage.Part) -> None:
        """Send one blob. A damaged one is not sent."""
        if part.extent is None:
            send(io.BytesIO(part.data), 0, part.size, part.digest, self.ask, part.name)
            return
        with ociimage.BlobReader(part.extent) as reader:
            reader.finish(ociimage.Layer("", part.digest, part.size, part.extent, ()), part.name)
        with open(part.extent.path, "rb", opener=only_files) as file:
            send(file, part.extent.offset, part.size, part.digest, self.ask, part.name)

    def _import(
        self, layer: ociimage.Layer, blob: ociimage.Extent, chain: List[Dict[str, Any]], number: int, labels: Any
    ) -> Dict[str, Any]:
        """Send one layer and import it as a snapshot; return the result. The node then deletes the sent file."""
        link = chain[number]
        name = _name(chain, number)

        def transfer() -> str:
            with ociimage.BlobReader(blob) as reader:
                digest = reader.finish(layer, name)
                if ociimage.has_zstd(blob):
                    reader.seek(0)
                    return send_repacked(reader, name, link["diff_id"], self.ask)  # type: ignore[arg-type]  # it needs read and seek
            with open(blob.path, "rb", opener=only_files) as file:
                send(file, blob.offset, blob.size, digest, self.ask)
            return digest

        wanted = {
            "name": link["name"],
            "parent": link["parent"],
            "digest": link["diff_id"],
            "labels": labels,
        }
        result: Dict[str, Any] = import_layer(wanted, name, transfer, self.ask)["result"]
        return result


def _offer(image: ociimage.Image) -> Dict[str, Any]:
    """Return what a node needs to know of an image to choose one."""
    diff_ids = [layer.diff_id for layer in image.layers]
    return {"config": image.config, "os_version": image.os_version, "diff_ids": diff_ids, "names": list(image.names)}


def chosen(images: Sequence[ociimage.Image], result: Dict[str, Any]) -> ociimage.Image:
    """Return the image that the node chose. Raises TaskFailure if the node names another one, or other layers."""
    diff_ids = [link["diff_id"] for link in result["chain"]]
    for image in images:
        if image.config == result.get("config") and [layer.diff_id for layer in image.layers] == diff_ids:
            return image
    raise TaskFailure("internal", str(unusable(Malformed("it chooses an image that was not offered"))))


def _name(chain: List[Dict[str, Any]], number: int) -> str:
    return f"layer {number + 1} of {len(chain)} ({chain[number]['diff_id']})"
