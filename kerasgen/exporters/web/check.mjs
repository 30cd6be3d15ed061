// Generates with the page's modules in Node.js: a job as JSON on standard input, and the ids as JSON on standard output.
// Logits of texts that are to be read go into a file, as float32.

import { appendFileSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

/** End with an error's own words; Node.js would print the source of the line too, which is all modules in one. */
const fail = (error) => process.stdout.write(`\n${JSON.stringify({ error: String(error) })}\n`, () => process.exit(1));
process.on("uncaughtException", fail).on("unhandledRejection", fail);

const job = JSON.parse(readFileSync(0, "utf8"));
const core = `${job.modules}/@litertjs/core`;

// LiteRT.js is written for browsers; its engine is a script that looks for these.
globalThis.self = globalThis;
globalThis.require = createRequire(import.meta.url);
globalThis.__dirname = `${core}/wasm`;
globalThis.__filename = `${core}/wasm/litert_wasm_internal.js`;
globalThis.importScripts = (name) => vm.runInThisContext(readFileSync(name, "utf8"), { filename: name });
console.log = console.warn = console.info = console.error; // the engine's own messages

const litert = await import(pathToFileURL(`${core}/dist/index.js`));

/** The page's modules as one: Node.js takes files that end in .js and lie in no package for scripts. */
async function generatorClass() {
  const names = ["random", "form", "sampler", "tokenizer", "generator"];
  const source = names.map((name) => readFileSync(`${job.folder}/${name}.js`, "utf8").replace(/^import .*$/gm, ""));
  const joined = Buffer.from(source.join("\n")).toString("base64");
  return (await import(`data:text/javascript;base64,${joined}`)).Generator;
}

await litert.loadLiteRt(`${core}/wasm/`);
const bytes = new Uint8Array(readFileSync(`${job.folder}/model.tflite`));
const model = await litert.loadAndCompile(bytes, { accelerator: "wasm" });
const description = JSON.parse(readFileSync(`${job.folder}/page.json`, "utf8"));
const forms = {};
for (const [name, file] of Object.entries(description.forms)) {
  forms[name] = JSON.parse(readFileSync(`${job.folder}/${file}`, "utf8"));
}
const utf8 = description.utf8 ? new Int8Array(readFileSync(`${job.folder}/utf8.bin`)) : null;
const Generator = await generatorClass();
const generator = new Generator(litert, model, { ...description, forms }, utf8);
const all = [];
const begin = performance.now();
let tokens = 0;
for (const { prompt, seed, form, settings, new: most } of job.asked) {
  const whole = form !== null && forms[form].whole_text;
  const ids = [];
  const request = { ...settings, seed, form, max_new_tokens: most ?? job.new };
  for await (const { id } of generator.stream(whole ? "" : prompt, request)) ids.push(id);
  all.push(ids);
  tokens += ids.length;
}
for (const { ids, prefilled } of job.read ?? []) {
  for await (const logits of generator.read(ids, prefilled)) appendFileSync(job.logits, Buffer.from(logits.buffer));
}
const perSecond = (tokens / (performance.now() - begin)) * 1000;
const answer = { ids: all, node: process.version, tokens_per_second: perSecond || 0 };
process.stdout.write(`\n${JSON.stringify(answer)}\n`, () => process.exit(0));
