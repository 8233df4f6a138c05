// Who is let in: Node's `ws` and Chromium, with a server that asks everybody, for pages and for WebSockets.
//
// Pages of any origin may connect: those that shall not have sent a password before are blank.
//
// WSHD_URL is the server (ws://127.0.0.1:9998), WSHD_USER, WSHD_PASSWORD and WSHD_TOKEN are what it knows, CHROMIUM is the browser's program.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { WebSocket } from "ws";
import { start } from "./chromium.mjs";

const TEST_MS_MAX = 120_000;

const { WSHD_URL: SERVER, WSHD_USER: USER, WSHD_PASSWORD: PASSWORD, WSHD_TOKEN: TOKEN, CHROMIUM } = process.env;
for (const [name, value] of Object.entries({ SERVER, USER, PASSWORD, TOKEN, CHROMIUM })) {
  assert.ok(value, `${name} is not set; see the first lines of this file`);
}
const PAGE = SERVER.replace(/^ws/, "http");
const BASIC = `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString("base64")}`;
const BY_TOKEN = ["wshd.bearer", `wshd.bearer.${TOKEN}`];

describe("with Node's ws", { timeout: TEST_MS_MAX }, () => {
  async function echo(t, protocols, headers) {
    const client = new WebSocket(`${SERVER}/echo`, protocols, { headers });
    t.after(() => client.terminate());
    await once(client, "open");
    client.send("hello");
    const [bytes] = await once(client, "message");
    assert.equal(bytes.toString(), "hello");
    return client.protocol;
  }

  async function status(t, protocols, headers) {
    const client = new WebSocket(`${SERVER}/echo`, protocols, { headers });
    t.after(() => client.terminate());
    client.on("error", () => {});
    const [, response] = await once(client, "unexpected-response");
    return response.statusCode;
  }

  test("the right password or token opens, in a header or among the subprotocols", async (t) => {
    assert.equal(await echo(t, [], { Authorization: BASIC }), "");
    assert.equal(await echo(t, [], { Authorization: `Bearer ${TOKEN}` }), "");
    assert.equal(await echo(t, BY_TOKEN), "wshd.bearer");
  });

  test("a wrong one, or none, is answered with 401", async (t) => {
    assert.equal(await status(t, []), 401);
    assert.equal(await status(t, [], { Authorization: "Basic YTpi" }), 401);
    assert.equal(await status(t, [], { Authorization: "Bearer guess" }), 401);
    assert.equal(await status(t, ["wshd.bearer", "wshd.bearer.guess"]), 401);
  });
});

describe("in Chromium", { timeout: 5 * TEST_MS_MAX }, () => {
  let browser;
  let end;

  before(async () => {
    ({ browser, end } = await start(CHROMIUM, TEST_MS_MAX));
  });

  after(() => end?.());

  // A tab that shares no password with others.
  function inTab(name, body) {
    test(name, { timeout: TEST_MS_MAX }, async (t) => {
      const visitor = await browser.createBrowserContext();
      t.after(() => visitor.close());
      await body(await visitor.newPage());
    });
  }

  async function visit(tab, credentials) {
    await tab.authenticate(credentials);
    const response = await tab.goto(PAGE);
    return response.status();
  }

  // How a WebSocket of the page ends: what it heard, or the code of its close.
  function open(tab, url, protocols) {
    return tab.evaluate(
      (url, protocols) => new Promise((resolve) => {
        const socket = new WebSocket(url, protocols);
        socket.onopen = () => socket.send("hello");
        socket.onmessage = ({ data }) => resolve({ data, protocol: socket.protocol });
        socket.onclose = ({ code }) => resolve({ code });
      }),
      url,
      protocols,
    );
  }

  inTab("a page is shown to who has the password, and 401 to who has not", async (tab) => {
    assert.equal(await visit(tab, { username: USER, password: "guess" }), 401);
    assert.equal(await visit(tab, { username: USER, password: PASSWORD }), 200);
    assert.match(await tab.content(), /WebSocket/);
  });

  inTab("a page opens a WebSocket with a token among the subprotocols", async (tab) => {
    const heard = await open(tab, `${SERVER}/echo`, BY_TOKEN);
    assert.deepEqual(heard, { data: "hello", protocol: "wshd.bearer" });
    assert.deepEqual(await open(tab, `${SERVER}/echo`, ["wshd.bearer", "wshd.bearer.guess"]), { code: 1006 });
    assert.deepEqual(await open(tab, `${SERVER}/echo`, []), { code: 1006 });
  });

  inTab("the password in the URL of a page is sent for its WebSockets too", async (tab) => {
    const url = new URL(PAGE);
    [url.username, url.password] = [USER, PASSWORD];
    assert.equal((await tab.goto(url.href)).status(), 200);
    assert.deepEqual(await open(tab, `${SERVER}/echo`, []), { data: "hello", protocol: "" });
  });

  inTab("a password that was typed for a page is sent for its WebSockets too", async (tab) => {
    assert.equal(await visit(tab, { username: USER, password: PASSWORD }), 200);
    assert.deepEqual(await open(tab, `${SERVER}/echo`, []), { data: "hello", protocol: "" });
  });
});
