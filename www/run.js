// "Run WebSocket": the conversation of the well-known HTML5 WebSocket tutorial, with a list in place of its alerts.

import { addressOf } from "./address.js";
import { Log } from "./log.js";

const button = document.getElementById("run");
const log = new Log(document.getElementById("run-log"));

button.addEventListener("click", () => {
  log.clear();
  log.attempt(run);
});

function run() {
  const socket = new WebSocket(addressOf("/echo"));
  log.add("connect", socket.url);
  log.listen(socket);
  button.disabled = true;

  const send = (text) => {
    socket.send(text);
    log.addSent(text);
  };
  socket.addEventListener("open", () => send("Message to send"));
  // Only the first answer is answered: the second is the handler's own goodbye.
  socket.addEventListener("message", () => send("Goodbye"), { once: true });
  socket.addEventListener("close", () => {
    button.disabled = false;
  });
}
