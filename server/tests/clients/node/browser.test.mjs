// Chromium, as a browser that we did not write: the page that the server shows, and the WebSocket of the browser itself.
//
// WSHD_URL is a running server (ws://127.0.0.1:9998), CHROMIUM the browser's program, SCREENSHOTS the folder for pictures.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { start } from "./chromium.mjs";

// What the page shows where the server compresses, and where it does not.
const OPENED = process.env.WSHD_DEFLATE
  ? 'protocol "", extensions "permessage-deflate; client_max_window_bits=12"'
  : 'protocol "", extensions ""';

// What has not happened by then does not happen. Each test has several waits, hence more time as a whole.
const WAIT_MS_MAX = 30_000;
const TEST_MS_MAX = 120_000;

const SERVER = setting("WSHD_URL", "the address of a running server");
const CHROMIUM = setting("CHROMIUM", "the path of Chromium, which these tests cannot do without");
const SCREENSHOTS = setting("SCREENSHOTS", "a folder for pictures of the page");
const PAGE = SERVER.replace(/^ws/, "http");

const DESKTOP = { width: 1200, height: 900 };
const PHONE = { width: 360, height: 740 };
const SMALL_PHONE = { width: 320, height: 568 };

describe("in Chromium", { timeout: 10 * TEST_MS_MAX }, () => {
  let browser;
  let folder;
  let end;

  before(async () => {
    await mkdir(SCREENSHOTS, { recursive: true });
    ({ browser, folder, end } = await start(CHROMIUM, TEST_MS_MAX));
  });

  after(() => end?.());

  // A test with a tab of its own, on the page that the server shows unless the test goes there itself.
  function inTab(name, body, { visit = true } = {}) {
    test(name, { timeout: TEST_MS_MAX }, async (t) => {
      const tab = await browser.newPage();
      t.after(() => tab.close());
      tab.setDefaultTimeout(WAIT_MS_MAX);
      await tab.setViewport(DESKTOP);
      if (visit) {
        await tab.goto(PAGE);
      }
      await body(tab);
    });
  }

  inTab("the page loads whole, from this server alone, and without a complaint", async (tab) => {
    const complaints = [];
    const paths = [];
    tab.on("console", (message) => complaints.push(`console: ${message.text()}`));
    tab.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
    tab.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure().errorText}`));
    tab.on("response", (response) => {
      const url = new URL(response.url());
      paths.push(url.pathname);
      if (response.status() >= 400 || url.origin !== PAGE) {
        complaints.push(`${response.url()}: ${response.status()}`);
      }
    });
    await tab.goto(PAGE);
    assert.deepEqual(complaints, []);
    for (const path of ["/", "/style.css", "/run.js", "/console.js"]) {
      assert.ok(paths.includes(path), `${path} is not among what was loaded: ${paths}`);
    }
    // The browser keeps its request for the icon from those who watch it.
    const icon = await fetch(await tab.$eval("link[rel=icon]", (link) => link.href));
    assert.equal(icon.status, 200);
  }, { visit: false });

  inTab("Run WebSocket opens, hears its message and Goodbye, and is closed cleanly with 1000", async (tab) => {
    await tab.locator("#run").click();
    await tab.waitForSelector("#run-log .close");
    assert.deepEqual(await lines(tab, "#run-log"), [
      ["connect", `${SERVER}/echo`, ""],
      ["open", OPENED, ""],
      ["sent", "Message to send", "text, 15 bytes"],
      ["message", "Message to send", "text, 15 bytes"],
      ["sent", "Goodbye", "text, 7 bytes"],
      ["message", "Goodbye", "text, 7 bytes"],
      ["close", 'code 1000, reason "", wasClean true', ""],
    ]);
    await tab.waitForSelector("#run:enabled");
    await picture(tab, "run-desktop", DESKTOP);
    await picture(tab, "run-phone", PHONE);
  });

  // As the tutorial has it: a page of one's own, opened as a file. Its origin is "null".
  inTab("a page that is opened as a file talks to echo, whose config lets it, and to no other handler", async (tab) => {
    const file = join(folder, "tutorial.html");
    await writeFile(file, `<!doctype html>
      <title>tutorial</title>
      <button id="run" onclick="talk()">Run WebSocket</button>
      <pre id="log"></pre>
      <script>
        const say = (line) => { document.getElementById("log").textContent += line + "\\n"; };
        function talk() {
          const socket = new WebSocket("${SERVER}/echo");
          socket.onopen = () => { say("origin " + self.origin); socket.send("Message to send"); };
          socket.onmessage = ({ data }) => {
            say("received " + data);
            if (data !== "Goodbye") socket.send("Goodbye");
          };
          socket.onclose = ({ code, wasClean }) => {
            say("closed " + code + " " + wasClean);
            const refused = new WebSocket("${SERVER}/counter");
            refused.onopen = () => say("open");
            refused.onclose = ({ code }) => say("refused " + code);
          };
        }
      </script>`);
    await tab.goto(pathToFileURL(file).href);
    await tab.locator("#run").click();
    await tab.waitForFunction(() => document.getElementById("log").textContent.includes("refused"));
    const log = await tab.$eval("#log", (log) => log.textContent.trim().split("\n"));
    assert.deepEqual(log, [
      "origin null",
      "received Message to send",
      "received Goodbye",
      "closed 1000 true",
      "refused 1006",
    ]);
  }, { visit: false });

  inTab("readyState runs through 0, 1, 2 and 3 when the page closes", async (tab) => {
    const { states, close } = await tab.evaluate((url) => new Promise((resolve) => {
      const socket = new WebSocket(url);
      const states = [socket.readyState];
      socket.onopen = () => {
        states.push(socket.readyState);
        socket.close(3000, "grüß dich");
        states.push(socket.readyState);
      };
      socket.onclose = ({ code, reason, wasClean }) => {
        states.push(socket.readyState);
        resolve({ states, close: { code, reason, wasClean } });
      };
    }), `${SERVER}/echo`);
    assert.deepEqual(states, [0, 1, 2, 3]);
    assert.deepEqual(close, { code: 3000, reason: "grüß dich", wasClean: true });
  });

  inTab("text and 1 MiB of bytes come back unchanged, and after Goodbye the server closes with 1000", async (tab) => {
    const seen = await tab.evaluate((url) => new Promise((resolve) => {
      const text = "Grüße, 世界 🌍";
      // getRandomValues gives at most 64 KiB at a time.
      const bytes = new Uint8Array(1 << 20);
      for (let at = 0; at < bytes.length; at += 1 << 16) {
        crypto.getRandomValues(bytes.subarray(at, at + (1 << 16)));
      }
      const isSame = (data) => {
        const back = new Uint8Array(data);
        return back.length === bytes.length && back.every((byte, at) => byte === bytes[at]);
      };
      const socket = new WebSocket(url);
      socket.binaryType = "arraybuffer";
      const seen = { states: [socket.readyState], messages: [] };
      socket.onopen = () => {
        seen.states.push(socket.readyState);
        socket.send(text);
      };
      socket.onmessage = ({ data }) => {
        if (data === text) {
          seen.messages.push("the text");
          socket.send(bytes);
        } else if (data instanceof ArrayBuffer) {
          seen.messages.push(isSame(data) ? "the bytes" : `${data.byteLength} other bytes`);
          socket.send("Goodbye");
        } else {
          seen.messages.push(data);
          // The server closes too; whichever is first, its code is what the page is told.
          socket.close();
          seen.states.push(socket.readyState);
        }
      };
      socket.onclose = ({ code, reason, wasClean }) => {
        seen.states.push(socket.readyState);
        resolve({ ...seen, close: { code, reason, wasClean } });
      };
    }), `${SERVER}/echo`);
    assert.deepEqual(seen, {
      states: [0, 1, 2, 3],
      messages: ["the text", "the bytes", "Goodbye"],
      close: { code: 1000, reason: "", wasClean: true },
    });
  });

  inTab("the subprotocol that the handler agrees to is the one the page sees", async (tab) => {
    const protocol = await tab.evaluate((url) => new Promise((resolve, reject) => {
      const socket = new WebSocket(url, ["other", "echo.wsh"]);
      socket.onopen = () => {
        resolve(socket.protocol);
        socket.close();
      };
      socket.onclose = ({ code }) => reject(new Error(`closed with ${code} and was never open`));
    }), `${SERVER}/echo`);
    assert.equal(protocol, "echo.wsh");
  });

  inTab("a handler that refuses with 403 is an error and a close with 1006, and never open", async (tab) => {
    // The page is told no status, but whoever looks at the browser's console is.
    const complaint = once(tab, "console", WAIT_MS_MAX);
    const events = await tab.evaluate((url) => new Promise((resolve) => {
      const socket = new WebSocket(url);
      const events = [];
      socket.onopen = () => {
        events.push("open");
        socket.close();
      };
      socket.onerror = () => events.push(`error in state ${socket.readyState}`);
      socket.onclose = ({ code, reason, wasClean }) => {
        events.push(`close with ${code} "${reason}", clean: ${wasClean}`);
        resolve(events);
      };
    }), `${SERVER}/chat`);
    assert.deepEqual(events, ["error in state 3", 'close with 1006 "", clean: false']);
    assert.match((await complaint).text(), /\b403\b/);
  });

  inTab("a connection that the handler aborts opens, and closes with 1006", async (tab) => {
    // An error is for the browser to make of it.
    const events = (await eventsOf(tab, "/abort")).filter((event) => event !== "error");
    assert.deepEqual(events, ["open", 'close with 1006 "", clean: false']);
    assert.deepEqual(await eventsOf(tab, "/abort_handshake"), ["error", 'close with 1006 "", clean: false']);
    const [opened, failed] = await eventsOf(tab, "/internal_error");
    assert.equal(opened, "open");
    assert.match(failed, /^close with 1011 .* clean: true$/);
  });

  inTab("cookies of an opening handshake are the page's, but for those that are HTTP's alone", async (tab) => {
    const cookies = async (query) => {
      assert.deepEqual(await eventsOf(tab, `/cookie?${query}`), ["open", 'close with 1000 "", clean: true']);
      const all = await browser.cookies();
      return { page: await tab.evaluate(() => document.cookie), all: all.map(({ name }) => name).sort() };
    };
    await cookies("clear");
    assert.deepEqual(await cookies("set"), { page: "foo=bar", all: ["foo"] });
    assert.deepEqual(await cookies("set_httponly"), { page: "foo=bar", all: ["foo", "httpOnlyFoo"] });
    assert.deepEqual(await cookies("clear"), { page: "", all: [] });
  });

  inTab("the console speaks in a room, and shows the code and reason that it closed with", async (tab) => {
    const address = `${SERVER}/chat?name=Ann&room=${roomName()}`;
    const states = await watchStates(tab);
    await tab.locator("#url").fill(address);
    await tab.locator("#connect").click();
    await tab.waitForSelector('#log .message ::-p-text("* Ann joined")');
    assert.equal(await tab.$eval("#socket-url", (shown) => shown.textContent), address);
    await tab.locator("#text").fill("<b>good</b> morning");
    await tab.locator("#send-text").click();
    await tab.waitForSelector('#log .message ::-p-text("Ann: <b>good</b> morning")');
    await tab.locator("#close-code").fill("3001");
    await tab.locator("#close-reason").fill("off to lunch");
    await tab.locator("#close").click();
    await tab.waitForSelector("#log .close");
    assert.deepEqual(await lines(tab, "#log"), [
      ["connect", address, ""],
      ["open", OPENED, ""],
      ["message", "* Ann joined", "text, 12 bytes"],
      ["sent", "<b>good</b> morning", "text, 19 bytes"],
      ["message", "Ann: <b>good</b> morning", "text, 24 bytes"],
      ["closing", "close() was called", ""],
      ["close", 'code 3001, reason "off to lunch", wasClean true', ""],
    ]);
    assert.deepEqual(await states(), ["0 CONNECTING", "1 OPEN", "2 CLOSING", "3 CLOSED"]);
    assert.equal(await tab.$eval("#log", (log) => log.querySelector("b")), null);
  });

  inTab("the console sends a file and shows the bytes that come back, and the agreed subprotocol", async (tab) => {
    const bytes = randomBytes(300);
    const file = join(folder, "three-hundred.bin");
    await writeFile(file, bytes);
    await tab.locator("#url").fill(`${SERVER}/echo`);
    await tab.locator("#protocols").fill("other, echo.wsh");
    await tab.locator("#connect").click();
    await tab.waitForSelector("#log .open");
    assert.equal(await tab.$eval("#protocol", (shown) => shown.textContent), "echo.wsh");
    const input = await tab.$("#file");
    await input.uploadFile(file);
    await tab.locator("#send-file").click();
    await tab.waitForSelector("#log .message");
    const start = bytes.subarray(0, 16).toString("hex").match(/../g).join(" ");
    assert.deepEqual((await lines(tab, "#log")).slice(2), [
      ["sent", "three-hundred.bin", "binary, 300 bytes"],
      ["message", `${start} …`, "binary, 300 bytes"],
    ]);
    await picture(tab, "console-desktop", DESKTOP);
    await picture(tab, "console-phone", PHONE, { fullPage: true });
  });

  inTab("the console takes binary messages as the type that is chosen, also of an open socket", async (tab) => {
    const file = join(folder, "three.bin");
    await writeFile(file, Buffer.of(1, 2, 3));
    await tab.locator("#url").fill(`${SERVER}/echo`);
    await tab.select("#binary-type", "blob");
    await tab.locator("#connect").click();
    await tab.waitForSelector("#log .open");
    await (await tab.$("#file")).uploadFile(file);
    await tab.locator("#send-file").click();
    await tab.waitForSelector("#log .message");
    await tab.select("#binary-type", "arraybuffer");
    await tab.locator("#send-file").click();
    await tab.waitForSelector('#log .message ::-p-text("01 02 03")');
    assert.deepEqual((await lines(tab, "#log")).slice(2), [
      ["sent", "three.bin", "binary, 3 bytes"],
      ["message", "a Blob", "binary, 3 bytes"],
      ["sent", "three.bin", "binary, 3 bytes"],
      ["message", "01 02 03", "binary, 3 bytes"],
    ]);
  });

  inTab("what the browser refuses is shown with its reason, and what cannot work is disabled", async (tab) => {
    assert.deepEqual(await disabledButtons(tab), ["send-text", "send-file", "close", "clear"]);
    await tab.locator("#url").fill("http://[");
    await tab.locator("#connect").click();
    await tab.waitForSelector("#log .exception ::-p-text(http://[)");
    await tab.locator("#url").fill(`${SERVER}/echo`);
    await tab.locator("#protocols").fill("two words");
    await tab.locator("#connect").click();
    await tab.waitForSelector("#log .exception ::-p-text(two words)");
    await tab.locator("#protocols").fill("");
    await tab.locator("#connect").click();
    await tab.waitForSelector("#log .open");
    assert.deepEqual(await disabledButtons(tab), ["connect", "send-file"]);
    await tab.locator("#close-code").fill("1001");
    await tab.locator("#close").click();
    await tab.waitForSelector("#log .exception ::-p-text(1001)");
    const kinds = (await lines(tab, "#log")).map(([kind]) => kind);
    assert.deepEqual(kinds, ["exception", "exception", "connect", "open", "exception"]);
    await tab.locator("#clear").click();
    assert.deepEqual(await lines(tab, "#log"), []);
  });

  inTab("the console's list keeps its last 500 lines", async (tab) => {
    await tab.evaluate(() => {
      document.getElementById("url").value = "http://[";
      for (let count = 0; count < 510; count += 1) {
        document.getElementById("connect").click();
      }
    });
    assert.equal((await lines(tab, "#log")).length, 500);
  });

  for (const phone of [PHONE, SMALL_PHONE]) {
    inTab(`nothing is wider than a phone of ${phone.width} pixels`, async (tab) => {
      await tab.setViewport(phone);
      const sizes = () => tab.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.deepEqual(await sizes(), [phone.width, phone.width]);
      await tab.locator("#url").fill(`${SERVER}/echo?${"long".repeat(100)}`);
      await tab.locator("#connect").click();
      await tab.waitForSelector("#log .open");
      await tab.locator("#text").fill("unbroken".repeat(400));
      await tab.locator("#send-text").click();
      // Of 3200 characters the list holds the first 2000.
      await tab.waitForSelector("#log .message ::-p-text(… and 1200 more characters)");
      assert.deepEqual(await sizes(), [phone.width, phone.width]);
    });
  }
});

// What the page of a tab sees of a WebSocket, until it is closed.
function eventsOf(tab, path) {
  return tab.evaluate((url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    const events = [];
    socket.onopen = () => events.push("open");
    socket.onerror = () => events.push("error");
    socket.onclose = ({ code, reason, wasClean }) => {
      events.push(`close with ${code} "${reason}", clean: ${wasClean}`);
      resolve(events);
    };
  }), SERVER + path);
}

function setting(name, meaning) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set: ${meaning}`);
  }
  return value;
}

// Rooms are the server's, and it may serve other tests.
function roomName() {
  return `browser-${randomBytes(6).toString("hex")}`;
}

// A list of the page as [kind, content, size].
function lines(tab, list) {
  return tab.$$eval(`${list} .line`, (lines) => lines.map((line) => (
    [".kind", ".content", ".size"].map((part) => line.querySelector(part).textContent)
  )));
}

// Unlike the one of node:events, with a bound.
function once(emitter, event, wait) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event} within ${wait} ms`)), wait);
    emitter.once(event, (value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}

function disabledButtons(tab) {
  return tab.$$eval("button:disabled", (buttons) => buttons.map((button) => button.id));
}

// Collects each state that the page shows from now on.
async function watchStates(tab) {
  await tab.$eval("#ready-state", (list) => {
    window.statesShown = [];
    const look = () => {
      const shown = list.querySelector("[aria-current]").textContent;
      if (shown !== window.statesShown.at(-1)) {
        window.statesShown.push(shown);
      }
    };
    new MutationObserver(look).observe(list, { attributes: true, subtree: true });
  });
  return () => tab.evaluate(() => window.statesShown);
}

// In the light and in the dark.
async function picture(tab, name, size, options = {}) {
  await tab.setViewport(size);
  for (const [scheme, suffix] of [["light", ""], ["dark", "-dark"]]) {
    await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await tab.screenshot({ ...options, path: join(SCREENSHOTS, `${name}${suffix}.png`) });
  }
}
