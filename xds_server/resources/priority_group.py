"""`envoy.extensions.router.cluster_specifiers.priority_group.v3`, new in Envoy 1.39.

The first attempt of a request goes to a cluster of the first group, its retry to one of the second (Envoy, "Priority
group cluster specifier"). Importing this module makes the message known to reflection as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_PACKAGE = "envoy.extensions.router.cluster_specifiers.priority_group.v3"
FILE = f"{_PACKAGE.replace('.', '/')}/priority_group.proto"
_Field = descriptor_pb2.FieldDescriptorProto

TYPE_URL = f"type.googleapis.com/{_PACKAGE}.PriorityGroupClusterSpecifier"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=FILE, package=_PACKAGE, syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    weight = file.message_type.add(name="ClusterWeight")
    weight.field.add(name="cluster_name", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    weight.field.add(
        name="weight",
        number=2,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_OPTIONAL,
        type_name=".google.protobuf.UInt32Value",
    )
    group = file.message_type.add(name="PriorityGroup")
    group.field.add(name="name", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    group.field.add(
        name="clusters",
        number=2,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=f".{_PACKAGE}.ClusterWeight",
    )
    specifier = file.message_type.add(name="PriorityGroupClusterSpecifier")
    specifier.field.add(
        name="priority_groups",
        number=1,
        type=_Field.TYPE_MESSAGE,
        label=_Field.LABEL_REPEATED,
        type_name=f".{_PACKAGE}.PriorityGroup",
    )
    return file


descriptor_pool.Default().AddSerializedFile(_file().SerializeToString())
_Specifier = message_factory.GetMessageClass(
    descriptor_pool.Default().FindMessageTypeByName(f"{_PACKAGE}.PriorityGroupClusterSpecifier")
)


def priority_groups(clusters: Iterable[str]) -> bytes:
    """Serialise a specifier that tries these clusters in turn, one for each attempt."""
    groups = [{"name": name, "clusters": [{"cluster_name": name, "weight": {"value": 1}}]} for name in clusters]
    specifier = _Specifier(priority_groups=groups)
    return bytes(specifier.SerializeToString(deterministic=True))
