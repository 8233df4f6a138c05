// Starts Chromium with a profile of its own, which goes away with it.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

// The browser, its folder, which tests may write to, and how to end it.
export async function start(program, timeoutMs) {
  const folder = await mkdtemp(join(tmpdir(), "wshd-chromium-"));
  const browser = await puppeteer.launch({
    executablePath: program,
    headless: true,
    // Over a pipe Chromium ends with this process, however that ends, and no port is opened.
    pipe: true,
    userDataDir: join(folder, "profile"),
    // What Chromium keeps beside its profile goes away with it too.
    env: { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder, XDG_CACHE_HOME: folder },
    timeout: timeoutMs,
    protocolTimeout: timeoutMs,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      // The certificate of a server that is tested is signed by itself.
      "--ignore-certificate-errors",
    ],
  });
  const end = async () => {
    await browser.close();
    // Helpers of Chromium may write their last file after it has gone.
    await rm(folder, { recursive: true, force: true, maxRetries: 10 });
  };
  return { browser, folder, end };
}
