// Holds the model apart from the page, so that the page stays quick while a text is written.
// It is a classic worker, for LiteRT.js loads its engine by importScripts, and lies beside that, where it is looked for.

let generator = null;
let stopping = null;

/** Fetch a file and tell how much of it is there. */
async function fetched(name, size) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  const parts = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    postMessage({ type: "loading", loaded, size });
  }
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

async function load() {
  const begin = performance.now();
  const [{ Generator }, litert, description] = await Promise.all([
    import("../generator.js"),
    import("./litert.js"),
    fetch("../page.json").then((response) => response.json()),
  ]);
  await litert.loadLiteRt(new URL("./", self.location.href).toString());
  const bytes = await fetched(`../${description.model}`, description.bytes);
  const model = await litert.loadAndCompile(bytes, { accelerator: "wasm" });
  const utf8 = description.utf8 ? new Int8Array(await (await fetch("../utf8.bin")).arrayBuffer()) : null;
  const forms = {};
  for (const [name, file] of Object.entries(description.forms)) {
    forms[name] = await (await fetch(`../${file}`)).json();
  }
  generator = new Generator(litert, model, { ...description, forms }, utf8);
  postMessage({ type: "ready", seconds: (performance.now() - begin) / 1000 });
}

async function generate({ prompt, settings }) {
  const { RequestError } = await import("../generator.js");
  stopping = new AbortController();
  const begin = performance.now();
  const ids = [];
  try {
    for await (const { id, text } of generator.stream(prompt, { ...settings, signal: stopping.signal })) {
      ids.push(id);
      postMessage({ type: "token", id, text });
      await new Promise((resolve) => setTimeout(resolve)); // a message to stop may come between
    }
    postMessage({ type: "end", ids, seconds: (performance.now() - begin) / 1000 });
  } catch (error) {
    postMessage({ type: "failed", reason: error instanceof RequestError ? error.message : String(error) });
  }
}

self.onmessage = ({ data }) => {
  if (data.type === "load") load().catch((error) => postMessage({ type: "broken", reason: String(error) }));
  if (data.type === "generate") generate(data);
  if (data.type === "stop") stopping?.abort();
};
