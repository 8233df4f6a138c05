// Conversations of Node's `ws`, a peer that we did not write, with the server at WSHD_URL. For wss:// NODE_EXTRA_CA_CERTS names the
// server's certificate. WSHD_DEFLATE is set if the server compresses.

import assert from "node:assert/strict";
import { on, once } from "node:events";
import http from "node:http";
import https from "node:https";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import * as ws from "./client.mjs";

const { answer, bytesOfLength } = ws;

const SERVER = process.env.WSHD_URL;
assert.ok(SERVER, "set WSHD_URL to where the server listens: ws://127.0.0.1:9998");
const HTTP_SERVER = SERVER.replace(/^ws/, "http");

// The config's limits.message_bytes_max, and fewer than its limits.connections_per_peer_max.
const MESSAGE_BYTES_MAX = 1024 * 1024;
const MANY_CONNECTIONS = 200;

// A conversation waits for events and never for time; this only bounds how long a failure takes.
const TEST_MS_MAX = 30_000;
const conversation = (name, talk) => test(name, { timeout: TEST_MS_MAX }, talk);

const dial = (t, path, ...options) => ws.dial(t, SERVER + path, ...options);
const connect = (t, path, ...options) => ws.connect(t, SERVER + path, ...options);
const refusal = (t, path, options) => ws.refusal(t, SERVER + path, options);

function get(t, path, headers) {
  const { get } = HTTP_SERVER.startsWith("https:") ? https : http;
  const request = get(HTTP_SERVER + path, { agent: false, headers });
  t.after(() => request.destroy());
  return request;
}

// The stream below an open WebSocket, for bytes that no library would send.
async function connectRaw(t, path) {
  const headers = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
  };
  const [, stream] = await once(get(t, path, headers), "upgrade");
  t.after(() => stream.destroy());
  return stream;
}


// ---- Messages ---------------------------------------------------------------------------------------------

conversation("text comes back unchanged, also when it is empty or not ASCII", async (t) => {
  const client = await connect(t, "/echo");
  for (const message of ["hello", "", "grüße, 世界 🌍", "\0\r\n"]) {
    client.send(message);
    assert.equal(await client.receive(), message);
  }
});

conversation("binary of every length class comes back unchanged, up to the limit", async (t) => {
  const client = await connect(t, "/echo");
  for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, MESSAGE_BYTES_MAX]) {
    const message = bytesOfLength(length);
    client.send(message);
    const echo = await client.receive();
    // Not deepEqual, which would print a megabyte.
    assert.ok(message.equals(echo), `${length} bytes came back changed`);
  }
});

conversation("a thousand messages sent without waiting come back in order", async (t) => {
  const client = await connect(t, "/echo");
  const messages = Array.from({ length: 1000 }, (_, index) => `message ${index}`);
  for (const message of messages) client.send(message);
  for (const message of messages) assert.equal(await client.receive(), message);
});

conversation("fragments come back as one message, and a ping between them is answered before", async (t) => {
  const client = await connect(t, "/echo");
  client.send("one, ", { fin: false });
  client.send("", { fin: false });
  client.ping("are you there?");
  const [payload] = await once(client, "pong");
  assert.equal(payload.toString(), "are you there?");
  client.send("two", { fin: true });
  assert.equal(await client.receive(), "one, two");
});

conversation("each ping is answered with its own payload, in order", async (t) => {
  const client = await connect(t, "/echo");
  const pongs = on(client, "pong", { close: ["close"] });
  const payloads = ["", "x".repeat(125), ...Array.from({ length: 100 }, (_, index) => `ping ${index}`)];
  for (const payload of payloads) client.ping(payload);
  for (const payload of payloads) {
    const { value } = await pongs.next();
    assert.equal(value?.toString(), payload);
  }
});


// ---- Closing ----------------------------------------------------------------------------------------------

for (const [code, reason] of [[1000, ""], [3000, "auf Wiederhören"], [4999, "x".repeat(123)]]) {
  conversation(`a close with ${code} is answered with its code and reason`, async (t) => {
    const client = await connect(t, "/echo");
    client.close(code, reason);
    assert.deepEqual(await client.closed, { code, reason, wasClean: true });
  });
}

conversation("a close without a code is answered without a code", async (t) => {
  const client = await connect(t, "/echo");
  client.close();
  // 1005 stands for a Close frame without a code (RFC 6455 section 7.1.5).
  assert.deepEqual(await client.closed, { code: 1005, reason: "", wasClean: true });
});

conversation("Goodbye comes back, and then the server closes with 1000", async (t) => {
  const client = await connect(t, "/echo");
  client.send("Goodbye");
  assert.equal(await client.receive(), "Goodbye");
  assert.deepEqual(await client.closed, { code: 1000, reason: "", wasClean: true });
});

conversation("a message larger than the limit ends with 1009", async (t) => {
  const client = await connect(t, "/echo");
  client.send(bytesOfLength(MESSAGE_BYTES_MAX + 1));
  const { code, wasClean } = await client.closed;
  assert.deepEqual({ code, wasClean }, { code: 1009, wasClean: true });
});

conversation("a text that is not UTF-8 ends with 1007", async (t) => {
  const client = await connect(t, "/echo");
  client.send(Buffer.of(0xff), { binary: false });
  const { code, wasClean } = await client.closed;
  assert.deepEqual({ code, wasClean }, { code: 1007, wasClean: true });
});

// A frame of the client: FIN and opcode, mask bit and length, a mask of zeros that changes nothing, payload.
function masked(opcode, ...payload) {
  return Buffer.of(0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0, ...payload);
}

for (const [what, code, frame] of [
  ["an unmasked frame", 1002, Buffer.of(0x81, 2, 0x68, 0x69)],
  ["a frame with a reserved opcode", 1002, masked(0x3)],
  ["a text frame that is not UTF-8", 1007, masked(0x1, 0xff)],
]) {
  conversation(`${what} gets a Close with ${code} and then the end of the stream`, async (t) => {
    const stream = await connectRaw(t, "/echo");
    // A message behind the violation is neither answered, nor does it turn the end into a reset.
    stream.write(Buffer.concat([frame, masked(0x1, 0x68, 0x69)]));
    const received = await buffer(stream);
    assert.equal(received[0], 0x88, `a Close frame and not ${received.toString("hex")}`);
    assert.equal(received.readUInt16BE(2), code);
    assert.equal(received.length, 2 + received[1], "nothing follows the Close frame");
  });
}


// ---- Handshake --------------------------------------------------------------------------------------------

conversation("echo.wsh is agreed among several subprotocols", async (t) => {
  const client = await connect(t, "/echo", ["first.example", "echo.wsh", "last.example"]);
  assert.equal(client.protocol, "echo.wsh");
});

conversation("no subprotocol is agreed if only others are offered", async (t) => {
  const client = dial(t, "/echo", ["first.example", "last.example"]);
  const [response] = await once(client, "upgrade");
  assert.equal(response.statusCode, 101);
  assert.equal(response.headers["sec-websocket-protocol"], undefined);
  // RFC 6455 leaves it to the client whether it goes on; `ws` does not, like browsers.
  await assert.rejects(client.receive(), { message: "Server sent no subprotocol" });
});

const COMPRESSES = Boolean(process.env.WSHD_DEFLATE);

conversation("every way to offer compression is answered, and messages come back", async (t) => {
  if (!COMPRESSES) return;
  const text = JSON.stringify([...Array(200).keys()].map((id) => ({ id, name: `name of ${id}` })));
  for (const serverNoContextTakeover of [false, true]) {
    for (const clientNoContextTakeover of [false, true]) {
      // Without a number the client offers to be bound and lets the server choose. zlib of Node cannot use 8.
      for (const clientMaxWindowBits of [undefined, true, 9, 12, 15]) {
        for (const serverMaxWindowBits of [undefined, 8, 9, 15]) {
          const perMessageDeflate = {
            serverNoContextTakeover, clientNoContextTakeover, clientMaxWindowBits, serverMaxWindowBits, threshold: 0,
          };
          const offer = JSON.stringify(perMessageDeflate);
          const client = await connect(t, "/echo", { perMessageDeflate });
          assert.equal(client.extensions, "permessage-deflate", offer);
          for (const message of [text, text, "", "short", text.slice(0, 1000)]) {
            client.send(message);
            assert.equal(await client.receive(), message, offer);
          }
          client.close(1000);
          assert.equal((await client.closed).code, 1000, offer);
        }
      }
    }
  }
});

conversation("a message that inflates to more than the limit gets 1009", async (t) => {
  if (!COMPRESSES) return;
  const client = await connect(t, "/echo");
  client.send(Buffer.alloc(64 * MESSAGE_BYTES_MAX));
  assert.equal((await client.closed).code, 1009);
});

conversation("compression is offered and declined", async (t) => {
  if (COMPRESSES) return;
  let offered;
  const finishRequest = (request) => {
    offered = request.getHeader("Sec-WebSocket-Extensions");
    request.end();
  };
  const client = await connect(t, "/echo", { finishRequest });
  assert.match(offered, /permessage-deflate/);
  assert.equal(client.extensions, "");
  client.send("uncompressed");
  assert.equal(await client.receive(), "uncompressed");
});

conversation("a page of this host may connect, a page of another host gets 403", async (t) => {
  await connect(t, "/echo", { origin: HTTP_SERVER });
  const { status, body } = await refusal(t, "/echo", { origin: "http://elsewhere.example" });
  assert.equal(status, 403);
  assert.match(body, /http:\/\/elsewhere\.example/);
});

conversation("/chat without a name gets 403 and is told what is missing", async (t) => {
  const { status, body } = await refusal(t, "/chat");
  assert.equal(status, 403);
  assert.match(body, /\?name=NAME/);
});

conversation("a path that no handler serves gets 404", async (t) => {
  const { status } = await refusal(t, "/nowhere");
  assert.equal(status, 404);
});

conversation("another version of the protocol gets 426 and is told the right one", async (t) => {
  const { status, headers } = await refusal(t, "/echo", { protocolVersion: 8 });
  assert.equal(status, 426);
  assert.equal(headers["sec-websocket-version"], "13");
});

conversation("plain HTTP for a handler gets 426 and is told to upgrade", async (t) => {
  const [response] = await once(get(t, "/echo"), "response");
  const { status, headers } = await answer(response);
  assert.equal(status, 426);
  assert.equal(headers.upgrade, "websocket");
});


// ---- Examples ---------------------------------------------------------------------------------------------

conversation("echo_noext agrees to no extension and echoes", async (t) => {
  const client = await connect(t, "/echo_noext");
  assert.equal(client.extensions, "");
  client.send("hello");
  assert.equal(await client.receive(), "hello");
});

for (const [order, code, reason] of [["4001 so long", 4001, "so long"], ["0", 1005, ""]]) {
  conversation(`close is told "${order}" and does so`, async (t) => {
    const client = await connect(t, "/close");
    client.send(order);
    assert.deepEqual(await client.closed, { code, reason, wasClean: true });
  });
}

for (const [query, cookies] of [
  ["set", ["foo=bar; Max-Age=86400"]],
  ["set_httponly", ["httpOnlyFoo=bar; Max-Age=86400; httpOnly"]],
  ["clear", ["foo=0; Max-Age=0", "httpOnlyFoo=0; Max-Age=0"]],
]) {
  conversation(`cookie?${query} answers with its cookies and closes`, async (t) => {
    const client = dial(t, `/cookie?${query}`);
    const [response] = await once(client, "upgrade");
    assert.deepEqual(response.headers["set-cookie"], cookies);
    assert.equal((await client.closed).code, 1000);
  });
}

conversation("hsts answers with its header, says Hello and closes", async (t) => {
  const client = dial(t, "/hsts");
  const [response] = await once(client, "upgrade");
  assert.equal(response.headers["strict-transport-security"], "max-age=86400");
  assert.equal(await client.receive(), "Hello");
  assert.equal((await client.closed).code, 1000);
});

conversation("origin_check takes a page of http://example.com and no other", async (t) => {
  const client = await connect(t, "/origin_check", { origin: "http://example.com" });
  assert.match(await client.receive(), /origin_check is called/);
  for (const origin of ["http://elsewhere.example", HTTP_SERVER]) {
    assert.equal((await refusal(t, "/origin_check", { origin })).status, 403, origin);
  }
});

conversation("internal_error closes with 1011", async (t) => {
  const client = await connect(t, "/internal_error");
  assert.equal((await client.closed).code, 1011);
});

conversation("abort opens and is gone without a Close frame", async (t) => {
  const client = await connect(t, "/abort");
  assert.deepEqual(await client.closed, { code: 1006, reason: "", wasClean: false });
});

conversation("abort_handshake is gone without an answer", async (t) => {
  const [error] = await once(dial(t, "/abort_handshake"), "error");
  assert.match(error.message, /socket hang up/);
});

conversation("bench sends as often as it is told", async (t) => {
  const client = await connect(t, "/bench");
  client.send("0.001 10 hello you");
  for (let count = 0; count < 10; count += 1) assert.equal(await client.receive(), "hello you");
  assert.equal((await client.closed).code, 1000);
});

conversation("benchmark_helper sends and receives so many bytes", async (t) => {
  const client = await connect(t, "/benchmark_helper");
  assert.equal(client.extensions, "");
  client.send("receive 3000000");
  assert.deepEqual(await client.receive(), Buffer.alloc(3_000_000, "a"));
  client.send("send 1");
  client.send(Buffer.alloc(1_000_000, "a"));
  assert.equal(await client.receive(), "1000000");
});


// ---- Several clients --------------------------------------------------------------------------------------

conversation("members of a room hear each other, and that one leaves", async (t) => {
  // A room of this run alone.
  const join = (name) => connect(t, `/chat?${new URLSearchParams({ room: `ws ${process.pid}`, name })}`);
  const ann = await join("Ann");
  assert.equal(await ann.receive(), "* Ann joined");
  const zoe = await join("Zoë");
  for (const member of [ann, zoe]) assert.equal(await member.receive(), "* Zoë joined");

  ann.send("hello");
  for (const member of [ann, zoe]) assert.equal(await member.receive(), "Ann: hello");
  zoe.send("good day");
  for (const member of [ann, zoe]) assert.equal(await member.receive(), "Zoë: good day");

  zoe.close();
  assert.equal(await ann.receive(), "* Zoë left");
});

conversation("each session of the counter counts for itself", async (t) => {
  const first = await connect(t, "/counter");
  const second = await connect(t, "/counter");
  for (const [client, count] of [[first, "1"], [first, "2"], [second, "1"], [first, "3"], [second, "2"]]) {
    client.send("next");
    assert.equal(await client.receive(), count);
  }
});

conversation(`${MANY_CONNECTIONS} connections at once each get their own echo`, async (t) => {
  const clients = await Promise.all(Array.from({ length: MANY_CONNECTIONS }, () => connect(t, "/echo")));
  clients.forEach((client, index) => client.send(`client ${index}`));
  const echoes = await Promise.all(clients.map((client) => client.receive()));
  assert.deepEqual(echoes, clients.map((_, index) => `client ${index}`));
  for (const client of clients) client.close(1000);
  for (const client of clients) assert.equal((await client.closed).wasClean, true);
});
