# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages and services of containerd's API, from tables (api/services, api/types of containerd 1.6 to 2.3)."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FieldProto = descriptor_pb2.FieldDescriptorProto

# A line that starts at the margin is a package. An indented line is a message and its fields: name=number, then the
# type if it is not text, then * if the field repeats. "map" is a map of texts, "map:TYPE" a map of messages.
_MESSAGES = """
google.protobuf
  Empty
  Any                       type_url=1 value=2:bytes
  Timestamp                 seconds=1:int nanos=2:int
  FieldMask                 paths=1*
containerd.types
  Mount                     type=1 source=2 target=3 options=4*
  Descriptor                media_type=1 digest=2 size=3:int annotations=5:map
  Platform                  os=1 architecture=2 variant=3
containerd.services.version.v1
  VersionResponse           version=1 revision=2
containerd.services.introspection.v1
  Plugin                    type=1 id=2 requires=3* platforms=4:containerd.types.Platform* exports=5:map capabilities=6*
  PluginsRequest            filters=1*
  PluginsResponse           plugins=1:Plugin*
  ServerResponse            uuid=1 pid=2:int
containerd.services.namespaces.v1
  Namespace                 name=1 labels=2:map
  GetNamespaceRequest       name=1
  ListNamespacesRequest     filter=1
  ListNamespacesResponse    namespaces=1:Namespace*
  NamespaceRequest          namespace=1:Namespace update_mask=2:google.protobuf.FieldMask
  NamespaceResponse         namespace=1:Namespace
  DeleteNamespaceRequest    name=1
containerd.services.leases.v1
  Lease                     id=1 created_at=2:google.protobuf.Timestamp labels=3:map
  CreateRequest             id=1 labels=3:map
  CreateResponse            lease=1:Lease
  DeleteRequest             id=1 sync=2:bool
  ListRequest               filters=1*
  ListResponse              leases=1:Lease*
  Resource                  id=1 type=2
  ResourceRequest           id=1 resource=2:Resource
  ListResourcesRequest      id=1
  ListResourcesResponse     resources=1:Resource*
containerd.services.images.v1
  Image                     name=1 labels=2:map target=3:containerd.types.Descriptor \
                            created_at=7:google.protobuf.Timestamp updated_at=8:google.protobuf.Timestamp
  GetImageRequest           name=1
  ListImagesRequest         filters=1*
  ListImagesResponse        images=1:Image*
  ImageRequest              image=1:Image update_mask=2:google.protobuf.FieldMask
  ImageResponse             image=1:Image
  DeleteImageRequest        name=1 sync=2:bool
containerd.services.containers.v1
  Runtime                   name=1 options=2:google.protobuf.Any
  Container                 id=1 labels=2:map image=3 runtime=4:Runtime spec=5:google.protobuf.Any snapshotter=6 \
                            snapshot_key=7 created_at=8:google.protobuf.Timestamp \
                            updated_at=9:google.protobuf.Timestamp extensions=10:map:google.protobuf.Any sandbox=11
  GetContainerRequest       id=1
  ListContainersRequest     filters=1*
  ListContainersResponse    containers=1:Container*
  ContainerRequest          container=1:Container update_mask=2:google.protobuf.FieldMask
  ContainerResponse         container=1:Container
  DeleteContainerRequest    id=1
containerd.services.content.v1
  Info                      digest=1 size=2:int created_at=3:google.protobuf.Timestamp \
                            updated_at=4:google.protobuf.Timestamp labels=5:map
  InfoRequest               digest=1
  InfoResponse              info=1:Info
  UpdateRequest             info=1:Info update_mask=2:google.protobuf.FieldMask
  ListContentRequest        filters=1*
  ListContentResponse       info=1:Info*
  DeleteContentRequest      digest=1
  ReadContentRequest        digest=1 offset=2:int size=3:int
  ReadContentResponse       offset=1:int data=2:bytes
  Status                    started_at=1:google.protobuf.Timestamp updated_at=2:google.protobuf.Timestamp ref=3 \
                            offset=4:int total=5:int expected=6
  StatusRequest             ref=1
  StatusResponse            status=1:Status
  ListStatusesRequest       filters=1*
  ListStatusesResponse      statuses=1:Status*
  WriteContentRequest       action=1:int ref=2 total=3:int expected=4 offset=5:int data=6:bytes labels=7:map
  WriteContentResponse      action=1:int started_at=2:google.protobuf.Timestamp \
                            updated_at=3:google.protobuf.Timestamp offset=4:int total=5:int digest=6
  AbortRequest              ref=1
containerd.services.snapshots.v1
  PrepareSnapshotRequest    snapshotter=1 key=2 parent=3 labels=4:map
  MountsRequest             snapshotter=1 key=2
  MountsResponse            mounts=1:containerd.types.Mount*
  CommitSnapshotRequest     snapshotter=1 name=2 key=3 labels=4:map
  Info                      name=1 parent=2 kind=3:int created_at=4:google.protobuf.Timestamp \
                            updated_at=5:google.protobuf.Timestamp labels=6:map
  InfoResponse              info=1:Info
  UpdateSnapshotRequest     snapshotter=1 info=2:Info update_mask=3:google.protobuf.FieldMask
  ListSnapshotsRequest      snapshotter=1 filters=2*
  ListSnapshotsResponse     info=1:Info*
  UsageResponse             size=1:int inodes=2:int
  CleanupRequest            snapshotter=1
containerd.services.diff.v1
  ApplyRequest              diff=1:containerd.types.Descriptor mounts=2:containerd.types.Mount* \
                            payloads=3:map:google.protobuf.Any sync_fs=4:bool
  ApplyResponse             applied=1:containerd.types.Descriptor
"""

# A line is a service, or one of its calls with its request and response. A * behind a message marks a stream.
_SERVICES = """
containerd.services.version.v1.Version
  Version                   google.protobuf.Empty VersionResponse
containerd.services.introspection.v1.Introspection
  Plugins                   PluginsRequest PluginsResponse
  Server                    google.protobuf.Empty ServerResponse
containerd.services.namespaces.v1.Namespaces
  Get                       GetNamespaceRequest NamespaceResponse
  List                      ListNamespacesRequest ListNamespacesResponse
  Create                    NamespaceRequest NamespaceResponse
  Update                    NamespaceRequest NamespaceResponse
  Delete                    DeleteNamespaceRequest google.protobuf.Empty
containerd.services.leases.v1.Leases
  Create                    CreateRequest CreateResponse
  Delete                    DeleteRequest google.protobuf.Empty
  List                      ListRequest ListResponse
  AddResource               ResourceRequest google.protobuf.Empty
  DeleteResource            ResourceRequest google.protobuf.Empty
  ListResources             ListResourcesRequest ListResourcesResponse
containerd.services.images.v1.Images
  Get                       GetImageRequest ImageResponse
  List                      ListImagesRequest ListImagesResponse
  Create                    ImageRequest ImageResponse
  Update                    ImageRequest ImageResponse
  Delete                    DeleteImageRequest google.protobuf.Empty
containerd.services.containers.v1.Containers
  Get                       GetContainerRequest ContainerResponse
  List                      ListContainersRequest ListContainersResponse
  ListStream                ListContainersRequest ContainerResponse*
  Create                    ContainerRequest ContainerResponse
  Update                    ContainerRequest ContainerResponse
  Delete                    DeleteContainerRequest google.protobuf.Empty
containerd.services.content.v1.Content
  Info                      InfoRequest InfoResponse
  Update                    UpdateRequest InfoResponse
  List                      ListContentRequest ListContentResponse*
  Delete                    DeleteContentRequest google.protobuf.Empty
  Read                      ReadContentRequest ReadContentResponse*
  Status                    StatusRequest StatusResponse
  ListStatuses              ListStatusesRequest ListStatusesResponse
  Write                     WriteContentRequest* WriteContentResponse*
  Abort                     AbortRequest google.protobuf.Empty
containerd.services.snapshots.v1.Snapshots
  Prepare                   PrepareSnapshotRequest MountsResponse
  View                      PrepareSnapshotRequest MountsResponse
  Mounts                    MountsRequest MountsResponse
  Commit                    CommitSnapshotRequest google.protobuf.Empty
  Remove                    MountsRequest google.protobuf.Empty
  Stat                      MountsRequest InfoResponse
  Update                    UpdateSnapshotRequest InfoResponse
  List                      ListSnapshotsRequest ListSnapshotsResponse*
  Usage                     MountsRequest UsageResponse
  Cleanup                   CleanupRequest google.protobuf.Empty
containerd.services.diff.v1.Diff
  Apply                     ApplyRequest ApplyResponse
"""

_TYPES = {
    "": _FieldProto.TYPE_STRING,
    "bytes": _FieldProto.TYPE_BYTES,
    "int": _FieldProto.TYPE_INT64,
    "bool": _FieldProto.TYPE_BOOL,
}


class Method(NamedTuple):
    """A call: its request and response classes, and which of the two is a stream."""

    name: str
    request: Any
    response: Any
    request_stream: bool
    response_stream: bool


def message(name: str) -> Any:
    """Return the class of a message, by its full name."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


def services() -> dict[str, list[Method]]:
    """Return all services by their full names."""
    found: dict[str, list[Method]] = {}
    for name, calls in _sections(_SERVICES):
        package = name.rpartition(".")[0]
        found[name] = [_method(package, *words) for words in calls]
    return found


def _method(package: str, name: str, request: str, response: str) -> Method:
    classes = [message(_full_name(package, word.rstrip("*"))) for word in (request, response)]
    return Method(name, classes[0], classes[1], request.endswith("*"), response.endswith("*"))


def _sections(table: str) -> list[tuple[str, list[list[str]]]]:
    """Split a table into its headings and the words of the lines below each."""
    sections: list[tuple[str, list[list[str]]]] = []
    for line in table.strip().splitlines():
        if line.startswith(" "):
            sections[-1][1].append(line.split())
        else:
            sections.append((line, []))
    return sections


def _full_name(package: str, name: str) -> str:
    return name if "." in name else f"{package}.{name}"


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    known: list[str] = []
    for package, lines in _sections(_MESSAGES):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3", dependency=known
        )
        for name, *fields in lines:
            _add_message(file.message_type.add(name=name), package, fields)
        pool.AddSerializedFile(file.SerializeToString())
        known.append(file.name)
    return pool


def _add_message(proto: descriptor_pb2.DescriptorProto, package: str, fields: list[str]) -> None:
    for text in fields:
        name, _equals, rest = text.partition("=")
        number, _colon, kind = rest.rstrip("*").partition(":")
        field = proto.field.add(name=name, number=int(number), label=_FieldProto.LABEL_OPTIONAL)
        if text.endswith("*"):
            field.label = _FieldProto.LABEL_REPEATED
        if kind.split(":")[0] == "map":
            # A map is a repeated message with a key and a value.
            entry = proto.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            value = kind.partition(":")[2]
            _add_message(entry, package, ["key=1", f"value=2:{value}" if value else "value=2"])
            field.label = _FieldProto.LABEL_REPEATED
            field.type = _FieldProto.TYPE_MESSAGE
            field.type_name = f".{package}.{proto.name}.{entry.name}"
        elif kind in _TYPES:
            field.type = _TYPES[kind]
        else:
            field.type = _FieldProto.TYPE_MESSAGE
            field.type_name = f".{_full_name(package, kind)}"


_POOL = _pool()
