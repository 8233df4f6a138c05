// A list of what happened to a WebSocket, for people to read.

// A page that stays open beside a busy room must not grow for ever: neither by lines nor by what one line holds.
const LINES_MAX = 500;
const TEXT_CHARS_MAX = 2000;
const PREVIEW_BYTES = 16;

export class Log extends EventTarget {
  #element;

  constructor(element) {
    super();
    this.#element = element;
  }

  get isEmpty() {
    return this.#element.childElementCount === 0;
  }

  // What a peer sent is inserted as text and never as markup.
  add(kind, content, size = "") {
    const wasAtEnd = this.#isAtEnd();
    const line = span(`line ${kind}`, "");
    line.append(span("time", timeOfDay()), span("kind", kind), span("content", content), span("size", size));
    this.#element.append(line);
    while (this.#element.childElementCount > LINES_MAX) {
      this.#element.firstElementChild.remove();
    }
    // Who has scrolled back is reading; the list must not move away.
    if (wasAtEnd) {
      this.#element.scrollTop = this.#element.scrollHeight;
    }
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    this.#element.replaceChildren();
    this.dispatchEvent(new Event("change"));
  }

  // Does something that can throw, and puts what the browser says of it where the user looks.
  attempt(action) {
    try {
      action();
    } catch (error) {
      this.add("exception", `${error.name}: ${error.message}`);
    }
  }

  addSent(data) {
    this.add("sent", contentOf(data), sizeOf(data));
  }

  // Lists every event of the socket as it happens.
  listen(socket) {
    socket.addEventListener("open", () => {
      this.add("open", `protocol ${quoted(socket.protocol)}, extensions ${quoted(socket.extensions)}`);
    });
    socket.addEventListener("message", ({ data }) => {
      this.add("message", contentOf(data), sizeOf(data));
    });
    socket.addEventListener("error", () => {
      // The event has no details, so that a page cannot probe networks with it.
      this.add("error", "the browser tells pages no reason; its developer tools may");
    });
    socket.addEventListener("close", ({ code, reason, wasClean }) => {
      this.add("close", `code ${code}, reason ${quoted(reason)}, wasClean ${wasClean}`);
    });
  }

  // Scroll positions are fractions of a pixel on some screens.
  #isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.#element;
    return scrollTop + clientHeight > scrollHeight - 8;
  }
}

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

// "14:03:07.042": the time zone is the reader's.
function timeOfDay() {
  const now = new Date();
  return `${now.toTimeString().slice(0, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`;
}

function quoted(text) {
  return `"${text}"`;
}

function contentOf(data) {
  if (data instanceof File) {
    return data.name;
  }
  if (data instanceof ArrayBuffer) {
    return hexOf(data);
  }
  // Its bytes could be read only later, and its line would be out of order.
  if (data instanceof Blob) {
    return "a Blob";
  }
  const more = data.length - TEXT_CHARS_MAX;
  return more > 0 ? `${data.slice(0, TEXT_CHARS_MAX)}… and ${more} more characters` : data;
}

function hexOf(buffer) {
  const start = new Uint8Array(buffer, 0, Math.min(buffer.byteLength, PREVIEW_BYTES));
  const hex = Array.from(start, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return buffer.byteLength > PREVIEW_BYTES ? `${hex} …` : hex;
}

function sizeOf(data) {
  if (typeof data === "string") {
    return `text, ${bytes(new TextEncoder().encode(data).length)}`;
  }
  return `binary, ${bytes(data instanceof Blob ? data.size : data.byteLength)}`;
}

function bytes(count) {
  return count === 1 ? "1 byte" : `${count} bytes`;
}
