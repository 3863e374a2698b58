"""Server reflection, so that grpcurl can list, describe and decode everything this server sends.

An Any is decoded only if its type is in the pool: all extensions of Envoy are, which takes about half a second. Hence
nothing of it happens on import. The generated packages are a little behind Envoy. What they lack is described here
until they have it; what is served does not depend on it, since Envoy reads bytes.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType

import grpc
from google.protobuf import descriptor, descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer
from pydantic.alias_generators import to_camel

# grpcio-reflection knows the first only. The second has the same messages under another package name, so the same
# servicer answers both.
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"

_GENERATED = ("envoy.extensions", "envoy.config", "envoy.type", "envoy.data", "xds", "udpa")
_SERVICES = (
    "envoy.service.cluster.v3.cds_pb2",
    "envoy.service.discovery.v3.ads_pb2",
    "envoy.service.endpoint.v3.eds_pb2",
    "envoy.service.listener.v3.lds_pb2",
    "envoy.service.load_stats.v3.lrs_pb2",
    "envoy.service.route.v3.rds_pb2",
    "envoy.service.route.v3.srds_pb2",
    "envoy.service.secret.v3.sds_pb2",
)
_OWN = ("xds_server.resources.priority_group",)

_Field = descriptor_pb2.FieldDescriptorProto

# By file and message: the fields that are newer than the generated packages.
_NEWER = {
    ("envoy/config/listener/v3/listener.proto", "Listener"): (
        _Field(
            name="tcp_keepalive",
            json_name="tcpKeepalive",
            number=37,
            type=_Field.TYPE_MESSAGE,
            type_name=".envoy.config.core.v3.TcpKeepalive",
            label=_Field.LABEL_OPTIONAL,
        ),
    ),
    ("envoy/config/route/v3/route_components.proto", "RetryPolicy"): (
        _Field(
            name="refresh_cluster_on_retry",
            json_name="refreshClusterOnRetry",
            number=14,
            type=_Field.TYPE_BOOL,
            label=_Field.LABEL_OPTIONAL,
        ),
    ),
}


@functools.cache
def described() -> descriptor_pool.DescriptorPool:
    """Build the pool of everything that can be asked about: all messages, health, and reflection itself. Once."""
    alpha, health = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    health_pb2.DESCRIPTOR.CopyToProto(health)
    renamed = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    return _catalogue(alpha, text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto()), health)


def handlers(servicer: ReflectionServicer) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of both versions."""
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA))


def import_messages() -> tuple[ModuleType, ...]:
    """Import every generated module, so that each Any can be decoded. It takes about a third of a second, once."""
    names = [name for package in _GENERATED for name in _modules(importlib.import_module(package))]
    modules = [importlib.import_module(name) for name in (*names, *_SERVICES)]
    for own in _OWN:
        importlib.import_module(own)
    return tuple(modules)


def _catalogue(*more: descriptor_pb2.FileDescriptorProto) -> descriptor_pool.DescriptorPool:
    """Build a pool of all messages, and of `more` files, which depend on nothing but those."""
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(file: descriptor.FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        pool.AddSerializedFile(_completed(file).SerializeToString())

    for module in import_messages():
        add(module.DESCRIPTOR)
    default = descriptor_pool.Default()
    for own in _OWN:
        add(default.FindFileByName(importlib.import_module(own).FILE))
    for extra in more:
        pool.AddSerializedFile(extra.SerializeToString())
    return pool


def _completed(file: descriptor.FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in _messages(proto.message_type):
        for field in message.field:
            # The runtime leaves it out, and grpcurl would show names that are not those of protobuf's JSON.
            field.json_name = field.json_name or to_camel(field.name)
        known = {field.number for field in message.field}
        for field in _NEWER.get((proto.name, message.name), ()):
            if field.number not in known:
                message.field.append(field)
    return proto


def _messages(declared: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in declared:
        yield message
        yield from _messages(message.nested_type)


def _modules(package: ModuleType) -> Iterator[str]:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("_pb2"):
            yield module.name
