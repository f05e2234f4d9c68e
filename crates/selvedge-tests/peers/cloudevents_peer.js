// The official CloudEvents SDK for JavaScript as publisher and receiver.
//
// Usage: cloudevents_peer.js APP_PORT TOPIC GROUP publishes an event in binary
// and one in structured mode, receives both from the group, and prints what the
// SDK made of them, as JSON. cloudevents_peer.js --serve listens, prints its
// port and then a line of JSON for each event that is pushed to it.
const http = require("node:http");
const { CloudEvent, HTTP } = require("cloudevents");

const event = (number) =>
  new CloudEvent({
    id: `js-${number}`,
    source: "/javascript/sdk",
    type: "com.example.placed",
    time: "2026-01-31T12:00:00.000Z",
    // Nothing that is percent-encoded in headers: this SDK does not undo that.
    subject: "orders/7",
    datacontenttype: "application/json",
    partitionkey: "customer-7",
    comexampleextra: "kept",
    data: { number, text: "grüße" },
  });

const shown = (event) => {
  const { data, ...attributes } = event.toJSON();
  return { attributes, data };
};

const post = async (url, { headers, body }) => {
  const response = await fetch(url, { method: "POST", headers, body });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return response;
};

async function client(port, topic, group) {
  const base = `http://127.0.0.1:${port}/v1/topics/${topic}`;
  for (const message of [HTTP.binary(event(1)), HTTP.structured(event(2))]) {
    await post(`${base}/messages`, message);
  }
  const response = await post(`${base}/groups/${group}/receive?format=cloudevents`, {
    headers: { "content-type": "application/json" },
    body: '{"max": 10}',
  });
  const headers = Object.fromEntries(response.headers);
  const events = HTTP.toEvent({ headers, body: await response.text() });
  console.log(JSON.stringify(events.map(shown)));
}

function serve() {
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString();
      console.log(JSON.stringify(shown(HTTP.toEvent({ headers: request.headers, body }))));
      response.writeHead(204).end();
    });
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
}

if (process.argv[2] === "--serve") serve();
else
  client(...process.argv.slice(2)).catch((error) => {
    console.error(error);
    process.exit(1);
  });
