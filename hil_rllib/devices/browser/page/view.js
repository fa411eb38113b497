// What the server tells, on the page.
const TILES = {
  env_steps: ["env steps", whole],
  episodes: ["episodes", whole],
  updates_per_s: ["updates per second", (value) => value.toFixed(1)],
  env_steps_per_s: ["env steps per second", (value) => value.toFixed(1)],
  online_ring: ["online ring", whole],
  demo_ring: ["demo ring", whole],
  human_seconds: ["seconds by hand", (value) => value.toFixed(0)],
  greedy_success: ["greedy success", percent],
};
const OUTCOMES = { success: "solved", failure: "not solved", rerecord: "thrown away" };
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
let screens = [];
let idle = "policy";
let here = null; // which of several robots this page is of

export function showHello(hello) {
  idle = hello.idle;
  here = hello.robot;
  at("name").textContent = here ?? "Operator";
  at("idle-name").textContent = idle;
  at("mode").textContent = { hold: "hold to take over", toggle: "press to take over", auto: "move to take over" }[hello.mode];
  at("cameras").replaceChildren(...hello.cameras.map(camera));
  screens = [...at("cameras").querySelectorAll("canvas")].map((canvas) => canvas.getContext("2d"));
  at("controls").replaceChildren(...hello.controls.map(row));
  for (const button of document.querySelectorAll(".verdicts [data-hold]")) {
    button.querySelector("kbd").textContent = hello.controls.find(({ name }) => name === button.dataset.hold).key;
  }
}

export function showLink(state, text) {
  document.body.dataset.link = state;
  at("link").textContent = text;
}

export function showNow(now) {
  const stale = now.quiet_s > 1;
  document.body.dataset.who = stale || !now.who ? "none" : now.who;
  showLink(now.driving ? "drive" : "watch", now.driving ? "you drive" : "watching");
  at("who").textContent = stale ? "Waiting" : whoActs(now);
  at("seat").hidden = false;
  at("seat").textContent = now.driving ? "Give them back" : now.asking ? "Asking …" : "Take the controls";
  at("seat").disabled = now.asking;
  at("watching").hidden = now.driving;
  at("watching").textContent = now.taken ? "Somebody else has the controls; after five idle seconds they are yours for the asking." : "Nobody has the controls.";
  if (now.asked !== at("question").open) now.asked ? at("question").show() : at("question").close();
  at("episode-number").textContent = now.episode ?? "–";
  at("step").textContent = now.step ?? "–";
  at("reward").textContent = now.reward?.toFixed(2) ?? "–";
  at("total").textContent = now.total?.toFixed(2) ?? "–";
  at("round-trip").textContent = milliseconds(now.round_trip_ms);
  at("round-trip").classList.toggle("warn", now.round_trip_ms > 200);
  at("interval").textContent = milliseconds(now.interval_ms);
  if (now.input_latency_ms != null) at("latency").textContent = milliseconds(now.input_latency_ms);
  at("missed").textContent = now.missed ?? "–";
  at("pages").textContent = now.pages;
  showTimeline(now.timeline);
  at("outcomes").replaceChildren(...now.outcomes.map((end) => element("i", { className: end, title: OUTCOMES[end] })));
}

export function showRun({ values, points, robots }) {
  showRobots(robots);
  at("run").hidden = false;
  at("success-rate").textContent = percent(values.success_rate);
  at("intervention-rate").textContent = percent(values.intervention_rate);
  at("tiles").replaceChildren(
    ...Object.entries(TILES)
      .filter(([name]) => values[name] != null)
      .map(([name, [text, format]]) => {
        const tile = element("div");
        tile.append(element("dt", { textContent: text }), element("dd", { textContent: format(values[name]) }));
        return tile;
      }),
  );
  showChart(points);
}

// A binary message: the stamp (8 bytes), a length for each camera (4 bytes each), the JPEGs.
export function draw(buffer) {
  const view = new DataView(buffer);
  let start = 8 + 4 * screens.length;
  screens.forEach(async (screen, i) => {
    const length = view.getUint32(8 + 4 * i, true);
    const jpeg = new Blob([new Uint8Array(buffer, start, length)], { type: "image/jpeg" });
    start += length;
    const image = await createImageBitmap(jpeg);
    const { canvas } = screen;
    if (canvas.width !== image.width) [canvas.width, canvas.height] = [image.width, image.height];
    screen.drawImage(image, 0, 0);
    image.close();
  });
}

function whoActs(now) {
  if (now.who !== "human") return idle === "policy" ? "The policy acts" : "Nobody acts";
  return now.driving ? "You act" : "A person acts";
}

function camera(name) {
  const figure = element("figure");
  figure.append(element("canvas", { width: 128, height: 128, id: `camera-${name}` }), element("figcaption", { textContent: name }));
  return figure;
}

function row({ does, key, pad }) {
  const line = element("tr");
  line.append(element("td", { textContent: does }), element("td", { textContent: key || "any key above" }), element("td", { textContent: pad }));
  return line;
}

// Going to another robot's page leaves this one to its policy.
function showRobots(robots) {
  at("robots").hidden = !robots.length;
  const rows = robots.map((robot) => {
    const line = element("tr", { className: `${robot.robot === here ? "here" : ""} ${robot.by_hand ? "hand" : ""}` });
    const figures = [robot.robot, robot.value?.toFixed(2) ?? "–", robot.disagreement?.toFixed(3) ?? "–", `${robot.stuck_s.toFixed(1)} s`];
    line.append(...figures.map((text) => element("td", { textContent: text })), element("td"));
    if (robot.robot !== here && robot.url) line.lastChild.append(element("a", { href: reachable(robot.url), textContent: "go there" }));
    return line;
  });
  document.querySelector("#robots tbody").replaceChildren(...rows);
  const stuck = robots.find(({ suggested, robot, url }) => suggested && url && robot !== here);
  at("suggestion").hidden = !stuck;
  if (stuck) {
    at("suggestion").href = reachable(stuck.url);
    at("suggestion").textContent = `Help ${stuck.robot}: no progress for ${stuck.stuck_s.toFixed(0)} s`;
  }
}

// By the name that this page was reached by, where the robots' own is of their machine alone.
function reachable(url) {
  const address = new URL(url);
  if (/^(127\.|localhost$|\[::1\]$)/.test(address.hostname)) address.hostname = location.hostname;
  return address.href;
}

function showTimeline(who) {
  const bars = [];
  for (let i = 0; i < who.length; ) {
    let end = i;
    while (end < who.length && who[end] === who[i]) end++;
    const kind = who[i] === "h" ? "human" : who[i] === "?" ? "unknown" : "policy";
    bars.push(shape("rect", { class: kind, x: i, y: 0, width: end - i, height: 1 }));
    i = end;
  }
  at("timeline").setAttribute("viewBox", `0 0 ${Math.max(100, who.length)} 1`);
  at("timeline").replaceChildren(...bars);
}

function showChart(points) {
  const [left, right, top, bottom] = [30, 318, 6, 112];
  const parts = [];
  for (const level of [0, 0.5, 1]) {
    const y = bottom - level * (bottom - top);
    parts.push(shape("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
    parts.push(shape("text", { x: left - 6, y: y + 3.5, "text-anchor": "end" }, `${100 * level}%`));
  }
  if (points.length) {
    const first = points[0][0];
    const last = points.at(-1)[0];
    const across = (step) => left + ((right - left) * (step - first)) / Math.max(1, last - first);
    parts.push(shape("text", { x: left, y: 126 }, whole(first)), shape("text", { x: right, y: 126, "text-anchor": "end" }, `${whole(last)} env steps`));
    for (const [column, kind] of [[1, "success"], [2, "human"]]) {
      const line = points.filter((point) => point[column] != null).map((point) => `${across(point[0])},${bottom - point[column] * (bottom - top)}`);
      if (line.length === 1) line.push(`${right},${line[0].split(",")[1]}`);
      parts.push(shape("polyline", { class: kind, points: line.join(" ") }));
    }
  }
  at("chart").replaceChildren(...parts);
}

function element(kind, properties = {}) {
  return Object.assign(document.createElement(kind), properties);
}

function shape(kind, attributes, text = "") {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function milliseconds(value) {
  return value == null ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

function percent(value) {
  return value == null ? "–" : `${Math.round(100 * value)}%`;
}

function whole(value) {
  return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
}
