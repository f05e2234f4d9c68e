"""The official CloudEvents SDK for Python as publisher and receiver.

Usage: cloudevents_peer.py APP_PORT TOPIC GROUP publishes an event in binary and
one in structured mode, receives both from the group, and prints what the SDK
made of them, as JSON. cloudevents_peer.py --serve listens, prints its port and
then a line of JSON for each event that is pushed to it.
"""
import http.server
import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    from_structured_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent


def event(number):
    attributes = {
        "id": f"py-{number}",
        "source": "/python/sdk",
        "type": "com.example.placed",
        "specversion": "1.0",
        "time": datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc),
        "subject": 'for Zoë "Z" 100%',
        "datacontenttype": "application/json",
        "partitionkey": "customer-7",
        "comexampleextra": "kept",
    }
    return CloudEvent(attributes=attributes, data={"number": number, "text": "grüße"})


def shown(event):
    attributes = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in event.get_attributes().items()
    }
    return {"attributes": attributes, "data": event.get_data()}


def post(url, headers, body):
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request) as response:
        return response.read()


def client(port, topic, group):
    base = f"http://127.0.0.1:{port}/v1/topics/{topic}"
    for message in [to_binary_event(event(1)), to_structured_event(event(2))]:
        post(f"{base}/messages", message.headers, message.body)
    received = post(
        f"{base}/groups/{group}/receive?format=cloudevents",
        {"content-type": "application/json"},
        b'{"max": 10}',
    )
    got = []
    for one in json.loads(received):
        headers = {"content-type": "application/cloudevents+json"}
        message = HTTPMessage(headers=headers, body=json.dumps(one).encode())
        got.append(shown(from_structured_event(message)))
    print(json.dumps(got))


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        got = shown(from_http_event(HTTPMessage(headers=headers, body=body)))
        print(json.dumps(got), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


if sys.argv[1] == "--serve":
    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    print(server.server_address[1], flush=True)
    server.serve_forever()
else:
    client(*sys.argv[1:4])
