// Conversations of Node's `ws` through a server in front of wshd: without TLS at FRONT_PLAIN, with it at FRONT_TLS. What is below /local
// reaches wshd by its Unix socket, the rest by TCP. wshd, the program WSHD, runs in WSHD_FOLDER.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { on, once } from "node:events";
import { appendFile, copyFile, readFile, rename } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import path from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { answer, bytesOfLength, connect, refusal } from "./client.mjs";

const { FRONT_NAME, FRONT_PLAIN, FRONT_TLS, WSHD, WSHD_FOLDER } = process.env;
const SILENCE_SECONDS = Number(process.env.FRONT_SILENCE_SECONDS);
assert.ok(FRONT_PLAIN && FRONT_TLS && WSHD && WSHD_FOLDER && SILENCE_SECONDS, "run it with cargo xtask fronts");

// The config's limits.message_bytes_max.
const MESSAGE_BYTES_MAX = 1024 * 1024;

// The ways to wshd.
const DOORS = [FRONT_PLAIN, FRONT_TLS].flatMap((front) => [
  { name: `${new URL(front).protocol}// and TCP`, front, base: front },
  { name: `${new URL(front).protocol}// and the Unix socket`, front, base: `${front}/local` },
]);
const web = (url) => url.replace(/^ws/, "http");

// A conversation waits for events and never for time; this only bounds how long a failure takes.
const TEST_MS_MAX = 60_000;
const conversation = (name, talk) => test(name, { timeout: TEST_MS_MAX }, talk);
const atEachDoor = (name, talk) => {
  for (const door of DOORS) conversation(`${door.name}: ${name}`, (t) => talk(t, door));
};

async function count(client) {
  client.send("next");
  return Number(await client.receive());
}

async function get(t, url) {
  const { get } = url.startsWith("https:") ? https : http;
  const request = get(url, { agent: false });
  t.after(() => request.destroy());
  const [response] = await once(request, "response");
  return answer(response);
}


// ---- Messages ---------------------------------------------------------------------------------------------

atEachDoor("text and binary come back unchanged, up to the limit", async (t, { base }) => {
  const client = await connect(t, `${base}/echo`);
  for (const message of ["hello", "", "grüße, 世界 🌍"]) {
    client.send(message);
    assert.equal(await client.receive(), message);
  }
  for (const length of [0, 1, 125, 126, 65_535, 65_536, MESSAGE_BYTES_MAX]) {
    const message = bytesOfLength(length);
    client.send(message);
    const echo = await client.receive();
    assert.ok(message.equals(echo), `${length} bytes came back changed`);
  }
});

atEachDoor("a thousand messages sent without waiting come back in order", async (t, { base }) => {
  const client = await connect(t, `${base}/echo`);
  const messages = Array.from({ length: 1000 }, (_, index) => `message ${index}`);
  for (const message of messages) client.send(message);
  for (const message of messages) assert.equal(await client.receive(), message);
});

atEachDoor("fifty at once each get their own echo", async (t, { base }) => {
  const clients = await Promise.all(Array.from({ length: 50 }, () => connect(t, `${base}/echo`)));
  clients.forEach((client, index) => client.send(`client ${index}`));
  const echoes = await Promise.all(clients.map((client) => client.receive()));
  assert.deepEqual(echoes, clients.map((_, index) => `client ${index}`));
});

atEachDoor("a session on which nobody says anything stays open", async (t, { base }) => {
  const client = await connect(t, `${base}/echo`);
  const pings = on(client, "ping", { close: ["close"] });
  // One each second, from wshd. Without them the front would have cut the connection by then.
  for (let count = 0; count < SILENCE_SECONDS + 3; count += 1) {
    assert.ok(!(await pings.next()).done, `it was cut after ${count} pings`);
  }
  client.send("still here");
  assert.equal(await client.receive(), "still here");
});


// ---- Closing ----------------------------------------------------------------------------------------------

atEachDoor("close codes go both ways", async (t, { base }) => {
  for (const [code, reason] of [[1000, ""], [3000, "auf Wiederhören"], [4999, "x".repeat(123)]]) {
    const client = await connect(t, `${base}/echo`);
    client.close(code, reason);
    assert.deepEqual(await client.closed, { code, reason, wasClean: true });
  }
  const large = await connect(t, `${base}/echo`);
  large.send(Buffer.alloc(MESSAGE_BYTES_MAX + 1));
  assert.equal((await large.closed).code, 1009);
  const garbled = await connect(t, `${base}/echo`);
  garbled.send(Buffer.of(0xff), { binary: false });
  assert.equal((await garbled.closed).code, 1007);
});


// ---- Handshake --------------------------------------------------------------------------------------------

atEachDoor("a subprotocol is agreed", async (t, { base }) => {
  const client = await connect(t, `${base}/echo`, ["first.example", "echo.wsh"]);
  assert.equal(client.protocol, "echo.wsh");
});

atEachDoor("pages of this site may connect, others get 403", async (t, { base, front }) => {
  await connect(t, `${base}/echo`, { origin: web(front) });
  const { status, body } = await refusal(t, `${base}/echo`, { origin: "http://elsewhere.example" });
  assert.equal(status, 403);
  assert.match(body, /http:\/\/elsewhere\.example/);
});

atEachDoor("a page that came without TLS gets 403 where the front speaks it", async (t, { base, front }) => {
  if (front !== FRONT_TLS) return;
  const { status } = await refusal(t, `${base}/echo`, { origin: web(front).replace("https:", "http:") });
  assert.equal(status, 403);
});

atEachDoor("the refusal of a handler is seen with its words", async (t, { base }) => {
  const { status, body } = await refusal(t, `${base}/chat`);
  assert.equal(status, 403);
  assert.match(body, /\?name=NAME/);
});

atEachDoor("plain HTTP for a handler gets 426", async (t, { base }) => {
  const { status, headers } = await get(t, `${web(base)}/echo`);
  assert.equal(status, 426);
  assert.equal(headers.upgrade, "websocket");
});

atEachDoor("a path that nobody serves gets 404", async (t, { base }) => {
  assert.equal((await refusal(t, `${base}/nowhere`)).status, 404);
});

atEachDoor("wshd logs for whom the front comes", async (t, { base }) => {
  // The front adds its own peer behind it, which is a trusted one: the same machine.
  const address = `198.51.100.${DOORS.findIndex((door) => door.base === base) + (FRONT_NAME === "nginx" ? 101 : 1)}`;
  const client = await connect(t, `${base}/echo`, { headers: { "X-Forwarded-For": address } });
  client.close(1000);
  await client.closed;
  // Written by another process, which tells nobody.
  const log = path.join(WSHD_FOLDER, "wshd.log");
  while (!(await readFile(log, "utf8")).includes(`peer=${address}`)) await setTimeout(10);
});


// ---- The site, and a reload -------------------------------------------------------------------------------

for (const front of [FRONT_PLAIN, FRONT_TLS]) {
  conversation(`${front}: a page of the site comes from the front itself`, async (t) => {
    const { status, headers, body } = await get(t, `${web(front)}/index.html`);
    assert.equal(status, 200);
    assert.match(headers["content-type"], /^text\/html/);
    assert.match(headers.server, FRONT_NAME === "nginx" ? /^nginx/ : /^Apache/);
    assert.equal(body, await readFile(path.join(WSHD_FOLDER, "www/index.html"), "utf8"));
  });
}

const wshd = async (...command) => {
  const options = { cwd: WSHD_FOLDER };
  return (await promisify(execFile)(WSHD, ["--config", "config.toml", ...command], options)).stdout;
};

async function counter() {
  const { handlers } = JSON.parse(await wshd("status", "--json"));
  return handlers.find(({ path }) => path === "/counter");
}

conversation("sessions stay open when the library of their handler is replaced, and keep their count", async (t) => {
  const clients = await Promise.all(DOORS.map(({ base }) => connect(t, `${base}/counter`)));
  for (const client of clients) assert.deepEqual([await count(client), await count(client)], [1, 2]);
  const before = await counter();

  // What follows the last section of a library is never loaded: the same code as another version.
  const library = path.join(WSHD_FOLDER, "handlers/libcounter_wsh.so");
  await copyFile(library, `${library}.new`);
  await appendFile(`${library}.new`, ".");
  await rename(`${library}.new`, library);
  await wshd("reload", "counter");

  assert.ok((await counter()).active.number > before.active.number, "there is a new version");
  for (const client of clients) assert.equal(await count(client), 3);
  while ((await counter()).active.sessions < clients.length) await setTimeout(10);
  for (const client of clients) assert.equal(await count(client), 4);
  for (const client of clients) client.close(1000);
  for (const client of clients) assert.equal((await client.closed).wasClean, true);
});
