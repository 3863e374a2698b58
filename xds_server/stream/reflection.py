"""Server reflection, so that grpcurl can list, describe and decode everything this server sends.

grpcio-reflection knows `grpc.reflection.v1alpha` only. `v1` has the same messages under another package name, so the
same servicer answers both. An Any is decoded only if the module of its type was imported: all extensions of Envoy are,
which takes about a quarter of a second. Hence nothing of it happens on import.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

PAYLOADS = ("envoy.extensions", "envoy.config", "envoy.type", "envoy.data", "xds", "udpa")
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"


def import_payloads() -> int:
    """Import every generated module whose messages may be inside an Any; return how many there are."""
    count = 0
    for package in PAYLOADS:
        for name in _generated(importlib.import_module(package)):
            importlib.import_module(name)
            count += 1
    return count


def _generated(package: ModuleType) -> Iterator[str]:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("_pb2"):
            yield module.name


def describe_v1() -> None:
    """Make `v1` known to the descriptor pool: the file of `v1alpha` under the other package name."""
    name = reflection_pb2.DESCRIPTOR.name
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    renamed = text_format.MessageToString(file).replace("v1alpha", "v1")
    try:
        pool.FindFileByName(name.replace("v1alpha", "v1"))
    except KeyError:
        pool.AddSerializedFile(text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto()).SerializeToString())


def handlers(services: Iterable[str]) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of both versions, for a server of these services."""
    servicer = ReflectionServicer((*services, V1, V1ALPHA))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA))
