// Holds the model apart from the page, so that the page stays quick while a text is written: LiteRT-LM runs the bundle.
// It is a classic worker, for LiteRT-LM loads its engine by importScripts, and lies beside that, where it is looked for.

let lm = null;
let engine = null;
let description = null;
let said = []; // the messages of the conversation that goes on, of a model with a chat template
let stopping = null;

async function load() {
  const begin = performance.now();
  [lm, description] = await Promise.all([
    import("./index.js"),
    fetch("../page.json").then((response) => response.json()),
  ]);
  await lm.loadLiteRtLm(new URL("./", self.location.href).toString());
  const response = await fetch(`../${description.model}`);
  if (!response.ok) throw new Error(`${description.model}: ${response.status}`);
  let loaded = 0;
  const counted = new TransformStream({
    transform(part, controller) {
      loaded += part.length;
      postMessage({ type: "loading", loaded, size: description.bytes });
      controller.enqueue(part);
    },
  });
  // Without a name for it, LiteRT-LM takes WebGPU and files that were made for that.
  engine = await lm.Engine.create({ model: response.body.pipeThrough(counted), backend: lm.Backend.CPU });
  postMessage({ type: "ready", seconds: (performance.now() - begin) / 1000 });
}

/** The sampler of a request, as LiteRT-LM has it: the likeliest k, and of these what p leaves. */
function sampler({ sampler: name, k, p, temperature, seed }) {
  const most = description.vocabulary_size;
  return {
    type: lm.SamplerType.TOP_P,
    k: { greedy: 1, top_k: Math.min(k, most) }[name] ?? most,
    p: name === "top_p" ? p : 1,
    temperature: name === "greedy" ? 1 : temperature,
    seed: Number(BigInt.asUintN(31, BigInt(seed ?? 0))),
  };
}

/**
 * Return a conversation of what was said so far. LiteRT-LM can go on with one itself, but leaves out then what the
 * template writes after an answer. A model without a template is told a text as it stands.
 */
function begin(settings) {
  const sessionConfig = {
    applyPromptTemplateInSession: false,
    samplerParams: sampler(settings),
    maxOutputTokens: settings.max_new_tokens ?? 128,
  };
  return engine.createConversation({ sessionConfig, preface: said.length ? { messages: said } : undefined });
}

async function generate({ prompt, settings }) {
  const started = performance.now();
  const stops = (settings.stop ?? []).filter(Boolean);
  let shown = "";
  let talk = null;
  stopping = new AbortController();
  const { signal } = stopping;
  try {
    if (!prompt) throw new Error("empty");
    if (!description.chat || settings.fresh) {
      said = description.chat && settings.system ? [{ role: "system", content: settings.system }] : [];
    }
    talk = await begin(settings);
    const reader = talk.sendMessageStreaming(prompt).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const text = (value.content ?? []).map((part) => part.text ?? "").join("");
      shown += text;
      postMessage({ type: "token", id: null, text });
      await new Promise((resolve) => setTimeout(resolve)); // a message to stop may come between
      if (signal.aborted || stops.some((stop) => shown.includes(stop))) {
        await reader.cancel();
        break;
      }
    }
    if (description.chat) said.push({ role: "user", content: prompt }, { role: "assistant", content: shown });
    postMessage({ type: "end", ids: null, seconds: (performance.now() - started) / 1000 });
  } catch (error) {
    const reason = error.message ?? String(error);
    postMessage({ type: "failed", reason: /too long|exceed|maximum/i.test(reason) ? "long" : reason });
  } finally {
    await talk?.delete();
  }
}

self.onmessage = ({ data }) => {
  if (data.type === "load") load().catch((error) => postMessage({ type: "broken", reason: String(error) }));
  if (data.type === "generate") generate(data);
  if (data.type === "stop") stopping?.abort();
};
