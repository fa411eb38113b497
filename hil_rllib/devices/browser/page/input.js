// What the person holds: keys, touch pads, buttons of the page, a gamepad. Which is which the server has told.
const DEAD_ZONE = 0.1; // of full deflection, as on gamepads plugged in at the robot
const TOUCHED = 1e-6; // a finger at rest on a pad still takes over
const MOVE_MS = 20; // between messages of moving fingers: two at 120 Hz would be more than the server takes
const LATIN = /^\p{Script=Latin}$/u;

const keys = new Map(); // code of the key that is down → control
const buttons = new Map(); // pointer → control
const pads = { pad: [0, 0], lift: [0, 0] }; // deflection right and up, in [-1, 1]
const byCode = new Map();
const byChar = new Map();
let padControls = [];
let sticks = [];
let driving = false;
let changed = () => {};
let lastPad = "";
let movedAt = 0;
let tabbing = false; // the focus was moved with Tab, and by no click since

export function setControls(hello) {
  byCode.clear();
  byChar.clear();
  for (const { name, code, char } of hello.controls) {
    if (code) byCode.set(code, name);
    if (char) {
      byChar.set(char, name);
      byCode.set(`Key${char.toUpperCase()}`, name);
    }
  }
  padControls = hello.controls.filter(({ button }) => button !== null);
  sticks = hello.sticks;
}

export function setDriving(value) {
  driving = value;
}

export function released() {
  keys.clear();
  buttons.clear();
  for (const id of Object.keys(pads)) rest(id);
  mark();
}

// The message's part about what is held now.
export function held() {
  const gamepad = readGamepad();
  const x = pads.pad[1], y = -pads.pad[0], z = pads.lift[1];
  return { hands: [...new Set([...keys.values(), ...buttons.values()])], touch: [x, y, z], ...gamepad };
}

export function listen(callback) {
  changed = callback;
  addEventListener("keydown", onKeyDown);
  addEventListener("keyup", onKeyUp);
  addEventListener("blur", letGo);
  // A button that was clicked, or a question that came up, would keep the keys from the arm.
  addEventListener("focusin", ({ target }) => tabbing || target.blur());
  addEventListener("pointerdown", () => {
    tabbing = false;
    document.activeElement?.blur();
  });
  document.addEventListener("visibilitychange", () => document.hidden && letGo());
  addEventListener("contextmenu", (event) => event.target.closest("button, .pad") && event.preventDefault());
  for (const button of document.querySelectorAll("[data-hold]")) listenButton(button);
  for (const id of Object.keys(pads)) listenPad(id);
  addEventListener("gamepadconnected", tellGamepad);
  addEventListener("gamepaddisconnected", tellGamepad);
  if (!navigator.getGamepads) {
    document.getElementById("gamepad").textContent =
      "Browsers give gamepads only to pages of this machine or over https: open this one through an ssh tunnel.";
  }
}

function letGo() {
  released();
  changed();
}

function onKeyDown(event) {
  if (event.code === "Tab") tabbing = true;
  // macOS does not tell of keys that come up while Cmd is held.
  if (event.metaKey && !event.repeat) letGo();
  // R is the key that types it, wherever a Latin layout has it; of any other layout, the key at its place.
  const name = LATIN.test(event.key) ? byChar.get(event.key.toLowerCase()) : byCode.get(event.code);
  if (!name || !driving || event.metaKey) return;
  // Whoever moves through the page with Tab presses its buttons with Space and Enter.
  if (document.activeElement?.matches(":focus-visible:not(body)")) return;
  event.preventDefault();
  if (event.repeat) return;
  keys.set(event.code, name);
  mark();
  changed();
}

// Wherever the focus is by now, and whatever the key would type by now: what was held is let go.
function onKeyUp(event) {
  if (event.key === "Meta") letGo();
  if (!keys.delete(event.code)) return;
  event.preventDefault();
  mark();
  changed();
}

function listenButton(button) {
  const name = button.dataset.hold;
  const up = (event) => {
    if (buttons.delete(event.pointerId)) {
      mark();
      changed();
    }
  };
  button.addEventListener("pointerdown", (event) => {
    if (!driving || event.button !== 0) return;
    event.preventDefault();
    button.setPointerCapture(event.pointerId);
    buttons.set(event.pointerId, name);
    mark();
    changed();
  });
  button.addEventListener("pointerup", up);
  button.addEventListener("pointercancel", up);
  button.addEventListener("lostpointercapture", up);
  button.addEventListener("keydown", (event) => {
    if (driving && !event.repeat && !event.metaKey && (event.code === "Space" || event.code === "Enter")) {
      buttons.set(name, name);
      mark();
      changed();
    }
  });
  const letUp = () => {
    if (buttons.delete(name)) {
      mark();
      changed();
    }
  };
  button.addEventListener("keyup", letUp);
  button.addEventListener("blur", letUp); // the key comes up elsewhere
}

function listenPad(id) {
  const pad = document.getElementById(id);
  let pointer = null;
  const move = (event) => {
    if (event.pointerId !== pointer) return;
    const box = pad.getBoundingClientRect();
    const reach = box.height / 2 - 27; // of the knob's centre
    const clamp = (value) => Math.max(-1, Math.min(1, value / reach)) || TOUCHED;
    const across = id === "lift" ? 0 : clamp(event.clientX - box.left - box.width / 2);
    const up = clamp(box.top + box.height / 2 - event.clientY);
    pads[id] = [across, up];
    place(pad, across * reach, -up * reach);
  };
  const end = (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    rest(id);
    changed();
  };
  pad.addEventListener("pointerdown", (event) => {
    if (!driving || pointer !== null) return;
    event.preventDefault();
    pointer = event.pointerId;
    pad.setPointerCapture(pointer);
    pad.classList.add("held");
    move(event);
    changed();
  });
  pad.addEventListener("pointermove", (event) => {
    move(event);
    if (event.pointerId !== pointer || event.timeStamp - movedAt < MOVE_MS) return; // the next beat tells it
    movedAt = event.timeStamp;
    changed();
  });
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) pad.addEventListener(kind, end);
}

function rest(id) {
  const pad = document.getElementById(id);
  pads[id] = [0, 0];
  pad.classList.remove("held");
  place(pad, 0, 0);
}

function place(pad, right, down) {
  pad.querySelector(".knob").style.transform = `translate(${right}px, ${down}px)`;
}

function mark() {
  const down = new Set([...keys.values(), ...buttons.values()]);
  for (const button of document.querySelectorAll("[data-hold]")) {
    button.classList.toggle("held", down.has(button.dataset.hold));
  }
}

const gamepads = () => [...(navigator.getGamepads?.() ?? [])].filter((pad) => pad?.connected);
// Of any other layout nobody knows which button is which: what opens the gripper might throw the episode away.
const isKnown = ({ mapping }) => mapping === "standard";

function readGamepad() {
  const gamepad = gamepads().find(isKnown);
  if (!gamepad) return { pad: [], sticks: [0, 0, 0] };
  const down = padControls.filter(({ button }) => gamepad.buttons[button]?.pressed).map(({ name }) => name);
  const beyond = (value) => {
    const size = (Math.abs(value) - DEAD_ZONE) / (1 - DEAD_ZONE);
    return size > 0 ? Math.min(size, 1) * Math.sign(value) : 0;
  };
  const motion = sticks.map(([axis, sign]) => beyond(sign * (gamepad.axes[axis] ?? 0)));
  return { pad: down, sticks: motion };
}

function tellGamepad() {
  const found = gamepads(), used = found.find(isKnown);
  const unknown = ({ id }) =>
    `This browser does not know the buttons of ${id}: not used. Try Chrome, or plug it in at the robot.`;
  document.getElementById("gamepad").textContent =
    used ? `Gamepad: ${used.id}` : found.length ? unknown(found[0]) : "The gamepad is gone.";
}

// A gamepad has no events: look at it as often as the screen is drawn, and tell of changes at once.
function watchGamepad() {
  if (driving) {
    const now = JSON.stringify(readGamepad().pad);
    if (now !== lastPad) {
      lastPad = now;
      changed();
    }
  }
  requestAnimationFrame(watchGamepad);
}
requestAnimationFrame(watchGamepad);
