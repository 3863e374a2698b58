"""Server reflection, so that grpcurl can list, describe and decode everything this server sends.

grpcio-reflection knows `grpc.reflection.v1alpha` only. `v1` has the same messages under another package name, so the
same servicer answers both. An Any is decoded only if its type is in the pool: all extensions of Envoy are, which takes
about half a second. Hence nothing of it happens on import.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from xds_server.stream.server.catalogue import catalogue

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"


def described() -> descriptor_pool.DescriptorPool:
    """Build the pool of everything that can be asked about: all messages, health, and reflection itself."""
    alpha, health = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    health_pb2.DESCRIPTOR.CopyToProto(health)
    renamed = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    return catalogue(alpha, text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto()), health)


def handlers(services: Iterable[str], pool: descriptor_pool.DescriptorPool) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of both versions, for a server of these services."""
    servicer = ReflectionServicer((*services, V1, V1ALPHA), pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA))
