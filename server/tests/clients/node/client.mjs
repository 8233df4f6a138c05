// Node's `ws` as the tests use it: events that can be awaited, and an end with the test.

import assert from "node:assert/strict";
import { on, once } from "node:events";
import { text } from "node:stream/consumers";
import { WebSocket } from "ws";

// A WebSocket whose events can be awaited at any time after they have happened.
export class Client extends WebSocket {
  #messages = on(this, "message", { close: ["close"] });

  closed = new Promise((resolve) => {
    this.addEventListener("close", ({ code, reason, wasClean }) => resolve({ code, reason, wasClean }));
  });

  // The next message: a string if it is text, a Buffer if it is binary.
  async receive() {
    const { value, done } = await this.#messages.next();
    assert.ok(!done, "the connection ended where a message was expected");
    const [bytes, isBinary] = value;
    return isBinary ? bytes : bytes.toString();
  }
}

// Begins a handshake. However the conversation goes, its connection ends with it.
export function dial(t, url, ...options) {
  const client = new Client(url, ...options);
  t.after(() => client.terminate());
  return client;
}

export async function connect(t, url, ...options) {
  const client = dial(t, url, ...options);
  await once(client, "open");
  return client;
}

// What is said instead of 101.
export async function refusal(t, url, options) {
  const client = dial(t, url, options);
  const accepted = once(client, "open").then(() => assert.fail("the handshake was accepted"));
  const [, response] = await Promise.race([once(client, "unexpected-response"), accepted]);
  return answer(response);
}

export async function answer(response) {
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

export function bytesOfLength(length) {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => index % 251));
}
