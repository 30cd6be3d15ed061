// Runs modules of an exported page on a job: JSON on standard input, JSON on standard output.

import { readFileSync } from "node:fs";

const job = JSON.parse(readFileSync(0, "utf8"));
const source = ["random", "form", "sampler", "tokenizer"].map((name) =>
  readFileSync(`${job.page}/${name}.js`, "utf8").replace(/^import .*$/gm, "")
);
const joined = Buffer.from(source.join("\n")).toString("base64");
const { Decoder, Form, Tokenizer, choose, faultOf, promptKey, uniform } = await import(`data:text/javascript;base64,${joined}`);
const tokenizer = new Tokenizer(job.tokenizer);
const answer = {};

if (job.texts) {
  answer.ids = job.texts.map((text) => tokenizer.encode(text));
  answer.texts = answer.ids.map((ids) => {
    const decoder = new Decoder(tokenizer);
    return ids.map((id) => decoder.add(id)).join("") + decoder.end();
  });
}
if (job.form) {
  const form = new Form(job.form, tokenizer);
  answer.allowed = job.walks.map(({ ids, remaining }) => {
    const state = ids.reduce((before, id) => form.follow(before, id), 0);
    return [...form.allowed(state, remaining)].flatMap((may, id) => (may ? [id] : []));
  });
}
if (job.draws) {
  answer.chosen = job.draws.map(({ logits, settings, allowed, text, seed, prompt, place }) => {
    const drawn = uniform(promptKey(BigInt(seed), prompt), place);
    return [drawn, choose(logits, settings, allowed, text, drawn, 0)];
  });
}
if (job.settings) answer.faults = job.settings.map((settings) => faultOf(settings, job.forms));
process.stdout.write(JSON.stringify(answer));
