// The page: reads the form, asks the worker, and shows the text as it comes.

import { WORDS } from "./words.js";

const find = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
const description = await fetch("page.json").then((response) => response.json());
const worker = new Worker("runtime/worker.js");
let language = (navigator.language || "en").startsWith("zh") ? "zh" : "en";
let running = null;
let anew = true; // whether the next message begins a conversation
let status = () => WORDS[language].loading(megabytes(0), megabytes(description.bytes));

function say() {
  const words = WORDS[language];
  document.documentElement.lang = language === "zh" ? "zh-Hant" : "en";
  document.title = find("title").textContent = description.title;
  find("language").textContent = words.language;
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = words[place.dataset.text];
  if (description.chat) {
    find("prompt").previousElementSibling.textContent = words.message;
    find("write").textContent = words.send;
  }
  find("form").options[0].textContent = words.no_form;
  for (const option of find("sampler").options) option.textContent = words[option.value];
  find("about").textContent = words.about(megabytes(description.bytes));
  find("status").textContent = status();
}

function tell(what) {
  status = what;
  find("status").textContent = status();
}

function fill() {
  find("form").add(new Option("", ""));
  for (const name of Object.keys(description.forms ?? {})) find("form").add(new Option(name, name));
  find("forms").hidden = !Object.keys(description.forms ?? {}).length;
  for (const name of description.samplers) find("sampler").add(new Option("", name));
  find("sampler").value = "top_k";
  find("penalties").hidden = description.engine === "litertlm"; // which knows none
  find("length").max = description.max_tokens;
  find("length").value = Math.min(128, description.max_tokens);
  for (const place of document.querySelectorAll("[data-chat]")) place.hidden = !description.chat;
  for (const prompt of description.prompts) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = prompt;
    button.addEventListener("click", () => (find("prompt").value = prompt));
    find("examples").append(button);
  }
  chosen();
}

/** Show the settings of the chosen sampler alone. */
function chosen() {
  const name = find("sampler").value;
  for (const place of document.querySelectorAll("[data-for]")) {
    place.hidden = !place.dataset.for.split(" ").includes(name);
  }
}

function settings() {
  if (find("anew").checked && running === null) {
    find("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  }
  const stop = find("stop_at").value;
  return {
    max_new_tokens: Number(find("length").value) || 128,
    sampler: find("sampler").value,
    temperature: Number(find("temperature").value) || 1,
    k: Number(find("k").value) || 1,
    p: Number(find("p").value),
    repetition_penalty: Number(find("penalty").value) || 1,
    seed: find("seed").value || "0",
    form: find("form").value || null,
    stop: stop ? [stop] : [],
    system: find("system").value,
  };
}

/**
 * Write a text on the page and return a promise of its { ids, text, seconds }.
 * @param prompt the beginning.
 * @param own settings, in the place of what the page shows.
 */
function generate(prompt, own = settings()) {
  running?.reject(new Error("another text was begun"));
  const shown = find("text");
  const before = document.createElement("span");
  before.className = description.chat ? "message" : "prompt";
  before.textContent = prompt;
  const goesOn = description.chat && !own.fresh && !anew;
  if (!goesOn) shown.replaceChildren();
  shown.append(before, "");
  if (description.chat) find("prompt").value = "";
  find("write").disabled = true;
  find("stop").disabled = false;
  return new Promise((resolve, reject) => {
    running = { resolve, reject, text: "", stops: own.stop ?? [], tokens: 0, begin: performance.now() };
    worker.postMessage({ type: "generate", prompt, settings: { ...own, fresh: !goesOn } });
    anew = false;
  });
}

function finish() {
  running = null;
  find("write").disabled = false;
  find("stop").disabled = true;
}

worker.onmessage = ({ data }) => {
  if (data.type === "loading") {
    find("progress").value = data.loaded / data.size;
    tell(() => WORDS[language].loading(megabytes(data.loaded), megabytes(data.size)));
  }
  if (data.type === "ready") {
    find("progress").hidden = true;
    find("write").disabled = false;
    tell(() => WORDS[language].ready);
    document.body.dataset.state = "ready";
  }
  if (data.type === "broken") {
    document.body.dataset.state = "broken";
    tell(() => WORDS[language].broken + data.reason);
  }
  if (running === null) return;
  if (data.type === "token") {
    running.text = running.stops.reduce((text, stop) => text.split(stop)[0], running.text + data.text);
    running.tokens += 1;
    find("text").lastChild.data = running.text;
    const { tokens } = running;
    const rate = (tokens / (performance.now() - running.begin)) * 1000;
    tell(() => WORDS[language].speed(tokens, rate.toFixed(0)));
  }
  if (data.type === "end") {
    running.resolve({ ids: data.ids, text: running.text, seconds: data.seconds });
    finish();
  }
  if (data.type === "failed") {
    const names = { empty: "empty", long: "long", form: "form_failed", short: "short" };
    running.reject(new Error(data.reason));
    tell(() => WORDS[language][names[data.reason]] ?? data.reason);
    finish();
  }
};

find("request").addEventListener("submit", (event) => {
  event.preventDefault();
  generate(find("prompt").value).catch(() => {});
});
find("stop").addEventListener("click", () => worker.postMessage({ type: "stop" }));
find("sampler").addEventListener("change", chosen);
find("new_talk").addEventListener("click", () => {
  anew = true;
  find("text").replaceChildren();
  find("prompt").focus();
});
find("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  say();
});

fill();
say();
worker.postMessage({ type: "load" });
if ("serviceWorker" in navigator) navigator.serviceWorker.register("offline.js").catch(() => {});
globalThis.kerasgen = { generate }; // for a person at the browser's console
