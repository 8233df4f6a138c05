// The console: one WebSocket at a time, driven by hand, and its attributes while they change.

import { addressOf } from "./address.js";
import { Log } from "./log.js";

const { CONNECTING, OPEN, CLOSED } = WebSocket;

const byId = (id) => document.getElementById(id);
const log = new Log(byId("log"));
let socket = null;

onSubmit("connect-form", connect);
onSubmit("text-form", sendText);
onSubmit("file-form", sendFile);
onSubmit("close-form", close);
byId("file").addEventListener("change", show);
byId("binary-type").addEventListener("change", chooseBinaryType);
byId("clear").addEventListener("click", () => log.clear());
log.addEventListener("change", show);
suggestAddresses();
show();

function connect() {
  socket = new WebSocket(byId("url").value, protocolsIn(byId("protocols").value));
  socket.binaryType = byId("binary-type").value;
  log.add("connect", socket.url);
  log.listen(socket);
  follow();
}

function sendText() {
  send(byId("text").value);
  byId("text").select();
}

function sendFile() {
  const [file] = byId("file").files;
  send(file);
}

function send(data) {
  // The peer may have begun to close since the button was enabled; then the browser drops data without a word.
  if (socket.readyState !== OPEN) {
    log.add("dropped", "the socket is not open any more");
    return;
  }
  socket.send(data);
  log.addSent(data);
}

// Of an open socket it can be changed at any time.
function chooseBinaryType() {
  if (socket) {
    socket.binaryType = byId("binary-type").value;
  }
  show();
}

function close() {
  const code = byId("close-code").value.trim();
  const reason = byId("close-reason").value;
  // What is no number becomes 0, and the browser says what it thinks of that.
  socket.close(code === "" ? undefined : Number(code), reason);
  log.add("closing", "close() was called");
}

// An empty field asks for none; an empty name between two commas is for the browser to refuse.
function protocolsIn(text) {
  return text.trim() === "" ? [] : text.split(",").map((name) => name.trim());
}

function onSubmit(form, action) {
  byId(form).addEventListener("submit", (event) => {
    event.preventDefault();
    log.attempt(action);
    show();
  });
}

// readyState and bufferedAmount change without an event too, so they are looked at in every frame while the socket lives.
function follow() {
  show();
  if (socket.readyState !== CLOSED) {
    requestAnimationFrame(follow);
  }
}

function show() {
  const state = socket?.readyState;
  showState(state);
  if (socket) {
    setText("socket-url", socket.url);
    setText("protocol", socket.protocol || "none");
    setText("extensions", socket.extensions || "none");
    setText("buffered-amount", String(socket.bufferedAmount));
  }
  byId("connect").disabled = socket !== null && state !== CLOSED;
  byId("send-text").disabled = state !== OPEN;
  byId("send-file").disabled = state !== OPEN || byId("file").files.length === 0;
  byId("close").disabled = state !== CONNECTING && state !== OPEN;
  byId("clear").disabled = log.isEmpty;
}

// The steps stand in the order of their numbers.
function showState(state) {
  const steps = byId("ready-state").children;
  const shown = byId("ready-state").querySelector("[aria-current]");
  if (shown !== (steps[state] ?? null)) {
    shown?.removeAttribute("aria-current");
    steps[state].setAttribute("aria-current", "step");
  }
}

// Only what differs is written, so that a screen reader is not told the same again in every frame.
function setText(id, text) {
  if (byId(id).textContent !== text) {
    byId(id).textContent = text;
  }
}

function suggestAddresses() {
  for (const button of byId("paths").querySelectorAll("button")) {
    const address = addressOf(button.dataset.path);
    const option = document.createElement("option");
    option.value = address;
    byId("url-list").append(option);
    button.addEventListener("click", () => {
      byId("url").value = address;
    });
  }
  byId("url").value = addressOf("/echo");
}
