"""A gRPC client that makes every kind of call and prints what it got, as JSON.

Usage: grpc_client.py PORT. Run against the server directly and through a
proxy, it must print the same.
"""
import json
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1])
unary = channel.unary_unary("/test.Peer/Unary")
server_stream = channel.unary_stream("/test.Peer/ServerStream")
client_stream = channel.stream_unary("/test.Peer/ClientStream")
both = channel.stream_stream("/test.Peer/Both")
hang = channel.unary_unary("/test.Peer/Hang")
drip = channel.unary_stream("/test.Peer/Drip")
cancellations = channel.unary_unary("/test.Peer/Cancellations")
missing = channel.unary_unary("/test.Peer/Missing")
got = {}


def status(call):
    try:
        call()
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


def case(function):
    try:
        got[function.__name__] = function()
    except Exception as error:
        got[function.__name__] = "raised %s %s" % (type(error).__name__, error)


def pick(metadata, names):
    return sorted([key, repr(value)] for key, value in metadata if key in names)


@case
def unary_call():
    return unary(b"hello", timeout=10).decode()


@case
def empty_message():
    return unary(b"", timeout=10).decode()


@case
def large_messages():
    return len(unary(b"x" * 3_000_000, timeout=20))


@case
def metadata_and_trailers():
    answer, call = unary.with_call(
        b"metadata", timeout=10, metadata=(("x-word", "hi"), ("x-blob-bin", b"\x00\x01\xff"))
    )
    return [
        answer.decode(),
        pick(call.initial_metadata(), ["x-initial"]),
        pick(call.trailing_metadata(), ["x-trailing", "x-blob-bin"]),
    ]


@case
def error_status():
    try:
        unary(b"fail", timeout=10)
    except grpc.RpcError as error:
        return [error.code().name, error.details(), pick(error.trailing_metadata(), ["x-trailing"])]


@case
def unknown_method():
    return status(lambda: missing(b"", timeout=10))


@case
def server_streaming():
    return [len(list(server_stream(b"1000", timeout=20))), len(list(server_stream(b"0", timeout=10)))]


@case
def client_streaming():
    return client_stream((b"x" * 10_000 for _ in range(300)), timeout=20).decode()


@case
def both_streaming_in_lockstep():
    gate = threading.Semaphore(1)
    def requests():
        for nth in range(50):
            gate.acquire(timeout=10)
            yield b"%d" % nth
    answers = []
    for answer in both(requests(), timeout=20):
        answers.append(answer)
        gate.release()
    return [len(answers), answers[-1].decode()]


@case
def many_at_once():
    calls = [unary.future(b"%d" % nth, timeout=20) for nth in range(200)]
    return sum(call.result() == b"echo:%d" % nth for nth, call in enumerate(calls))


@case
def deadline_is_propagated():
    # gRPC writes what is left with two or three digits, rounded up.
    remaining = int(unary(b"deadline", timeout=5))
    return 3000 < remaining <= 5100


@case
def deadline_passes():
    begun = time.monotonic()
    code = status(lambda: hang(b"", timeout=0.5))
    return [code, time.monotonic() - begun < 3]


@case
def deadline_passes_in_a_stream():
    seen = []
    code = status(lambda: [seen.append(one) for one in drip(b"", timeout=0.6)])
    return [code, len(seen) > 2]


def wait_for_cancellations(least):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if int(cancellations(b"", timeout=5)) >= least:
            return True
        time.sleep(0.02)
    return False


@case
def cancellation_reaches_the_server():
    before = int(cancellations(b"", timeout=5))
    call = hang.future(b"", timeout=20)
    time.sleep(0.3)
    call.cancel()
    unary_is_over = wait_for_cancellations(before + 1)
    stream = drip(b"", timeout=20)
    next(stream)
    stream.cancel()
    return [unary_is_over, wait_for_cancellations(before + 2)]


@case
def health_service():
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=10).status


@case
def compressed():
    return unary(b"z" * 100_000, timeout=10, compression=grpc.Compression.Gzip)[:9].decode()


print(json.dumps(got))
