"""A gRPC server with the four kinds of call, and the standard health service.

Usage: grpc_server.py PORT. Messages are bytes; no generated code is needed.
It counts cancelled calls, and tells the count when asked.
"""
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

cancelled = 0
lock = threading.Lock()


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "first"),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-blob-bin", b"\x00\xff\x10")))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: caf\u00e9 100%")
    if request == b"metadata":
        return (metadata.get("x-word", "?") + "|" + repr(metadata.get("x-blob-bin"))).encode()
    if request == b"deadline":
        return b"%d" % int(context.time_remaining() * 1000)
    return b"echo:" + request


def server_stream(request, context):
    for nth in range(int(request)):
        yield b"%d" % nth


def client_stream(requests, context):
    count = size = 0
    for request in requests:
        count += 1
        size += len(request)
    return b"%d/%d" % (count, size)


def both(requests, context):
    for request in requests:
        yield b"echo:" + request


def hang(request, context):
    global cancelled
    gone = threading.Event()
    context.add_callback(gone.set)
    if gone.wait(20):
        with lock:
            cancelled += 1
    return b"late"


def drip(request, context):
    # Its end is counted where gRPC tells it: a generator may be dropped between two messages.
    gone = threading.Event()
    context.add_callback(gone.set)
    context.add_callback(count_cancelled)
    for nth in range(1000):
        yield b"%d" % nth
        if gone.wait(0.05):
            return


def count_cancelled():
    global cancelled
    with lock:
        cancelled += 1


def cancellations(request, context):
    with lock:
        return b"%d" % cancelled


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
        "Drip": grpc.unary_stream_rpc_method_handler(drip),
        "Cancellations": grpc.unary_unary_rpc_method_handler(cancellations),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
    standard = health.HealthServicer()
    standard.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(standard, server)
    server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    server.start()
    print("ready", flush=True)
    # Ends with the pipe that whoever started us holds.
    sys.stdin.read()
    server.stop(0)


main()
