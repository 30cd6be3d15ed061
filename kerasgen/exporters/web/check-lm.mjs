// Writes with the page's worker in Node.js: a job as JSON on standard input, and the texts as JSON on standard output.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import vm from "node:vm";

/** End with an error's own words; Node.js would print the source of the line too, which is all modules in one. */
const fail = (error) => process.stdout.write(`\n${JSON.stringify({ error: String(error) })}\n`, () => process.exit(1));
process.on("uncaughtException", fail).on("unhandledRejection", fail);

const job = JSON.parse(readFileSync(0, "utf8"));
const runtime = `${job.folder}/runtime`;
const place = (name) => (String(name).startsWith("file:") ? fileURLToPath(name) : String(name));

// LiteRT-LM is written for browsers; its engine is a script that looks for these, and so is the worker.
globalThis.self = globalThis;
globalThis.location = { href: pathToFileURL(`${runtime}/worker.js`).href };
globalThis.require = createRequire(import.meta.url);
globalThis.__dirname = runtime;
globalThis.importScripts = (name) => {
  globalThis.__filename = place(name);
  vm.runInThisContext(readFileSync(place(name), "utf8"), { filename: place(name) });
};
globalThis.fetch = async (name) => new Response(readFileSync(`${runtime}/${name}`));
console.log = console.warn = console.info = console.error; // the engine's own messages

const waiting = [];
const told = [];
globalThis.postMessage = (message) => (waiting.length ? waiting.shift()(message) : told.push(message));
const next = () => (told.length ? told.shift() : new Promise((resolve) => waiting.push(resolve)));

globalThis.load = () => import(pathToFileURL(`${job.modules}/@litert-lm/core/dist/index.js`));
const worker = readFileSync(`${runtime}/worker.js`, "utf8").replace('import("./index.js")', "globalThis.load()");
vm.runInThisContext(`{${worker}}`);

/** What the worker tells until it has done what it was asked for. */
async function ask(message) {
  let text = "";
  self.onmessage({ data: message });
  for (;;) {
    const told = await next();
    if (told.type === "token") text += told.text;
    if (told.type === "ready" || told.type === "end") return text;
    if (told.type === "broken" || told.type === "failed") throw new Error(told.reason);
  }
}

await ask({ type: "load" });
const texts = [];
const begin = performance.now();
for (const prompt of job.prompts) {
  const settings = { sampler: "greedy", max_new_tokens: job.new, fresh: true };
  texts.push(await ask({ type: "generate", prompt, settings }));
}
const seconds = (performance.now() - begin) / 1000;
process.stdout.write(`\n${JSON.stringify({ texts, node: process.version, seconds })}\n`, () => process.exit(0));
