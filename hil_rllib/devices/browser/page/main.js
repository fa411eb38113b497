// The page's connection: what comes is shown, what is held goes back 25 times a second and at every change.
import { held, listen, released, setControls, setDriving } from "./input.js";
import { draw, showHello, showLink, showNow, showRun } from "./view.js";

const BEAT_MS = 40; // between messages while driving; after 300 ms without any the policy acts
const RETRY_MS = [300, 600, 1200, 2500]; // between attempts to connect

history.replaceState(null, "", location.pathname); // the token is a cookie by now

let socket = null;
let attempts = 0;
let stamp = 0; // newest of the server's, and when it came
let stampAt = 0;
let driving = false;

function connect() {
  socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/socket");
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => (typeof data === "string" ? take(JSON.parse(data)) : draw(data));
  socket.onclose = ({ reason }) => {
    setDriver(false);
    showLink("off", reason ? `disconnected: ${reason}` : "reconnecting …");
    setTimeout(connect, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
  };
}

function take(message) {
  if (message.type === "hello") {
    attempts = 0;
    setControls(message);
    showHello(message);
  } else if (message.type === "run") {
    showRun(message);
  } else if (message.type === "now") {
    stamp = message.stamp;
    stampAt = performance.now();
    setDriver(message.driving);
    showNow(message);
    if (!driving) send({ type: "seen", ...seen() });
  }
}

function seen() {
  return { seen: stamp, held_ms: Math.max(0, performance.now() - stampAt) };
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function sendInput() {
  if (driving && stamp) send({ type: "input", ...held(), ...seen() });
}

function setDriver(now) {
  if (driving && !now) released();
  driving = now;
  setDriving(now);
}

listen(sendInput);
setInterval(sendInput, BEAT_MS);
document.getElementById("seat").onclick = () => send({ type: driving ? "give" : "ask" });
document.getElementById("accept").onclick = () => send({ type: "answer", accept: true });
document.getElementById("deny").onclick = () => send({ type: "answer", accept: false });
connect();
