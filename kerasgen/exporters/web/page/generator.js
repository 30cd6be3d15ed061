// Generates text with the exported model: LiteRT computes, and ids equal those of the Python package.

import { Form, ValidUtf8 } from "./form.js";
import { promptKey, uniform } from "./random.js";
import { choose, faultOf } from "./sampler.js";
import { Decoder, Tokenizer } from "./tokenizer.js";

/** What is wrong with a request, for a person. */
export class RequestError extends Error {}

export class Generator {
  /**
   * @param litert the module @litertjs/core, loaded.
   * @param model its compiled model.
   * @param description the exporter's JSON.
   * @param utf8 the table of valid UTF-8, Int8Array, or null where every token is whole characters.
   */
  constructor(litert, model, description, utf8 = null) {
    this.litert = litert;
    this.model = model;
    this.description = description;
    this.graph = description.graph;
    this.tokenizer = new Tokenizer(description.tokenizer);
    this.size = description.tokenizer.vocabulary_size;
    this.utf8 = utf8 === null ? null : new ValidUtf8(utf8, this.size);
    this.forms = new Map();
  }

  form(name) {
    if (!this.forms.has(name)) this.forms.set(name, new Form(this.description.forms[name], this.tokenizer));
    return this.forms.get(name);
  }

  #caches() {
    const { num_layers: layers, num_heads: heads, cache_length: length, head_dim: size } = this.graph;
    const caches = {};
    for (const kind of ["k", "v"]) {
      for (let layer = 0; layer < layers; layer++) {
        const zeros = new Float32Array(heads * length * size);
        caches[`kv_cache_${kind}_${layer}`] = new this.litert.Tensor(zeros, [1, heads, length, size]);
      }
    }
    return caches;
  }

  /** Run a signature, put the new caches in the place of the old ones, and return its logits if it has some. */
  async #run(signature, caches, tokens, places) {
    const inputs = {
      tokens: new this.litert.Tensor(Int32Array.from(tokens), [1, tokens.length]),
      input_pos: new this.litert.Tensor(Int32Array.from(places), [places.length]),
    };
    const outputs = await this.model.run(signature, { ...caches, ...inputs });
    let logits = null;
    for (const [name, tensor] of Object.entries(outputs)) {
      if (name in caches) {
        caches[name].delete();
        caches[name] = tensor;
      } else {
        logits = tensor.toTypedArray().slice(0, this.size); // a model may have rows for more ids than there are tokens
        tensor.delete();
      }
    }
    for (const tensor of Object.values(inputs)) tensor.delete();
    return logits;
  }

  async #step(caches, id, place) {
    const fitting = this.graph.decode_lengths.find((length) => place < length);
    return this.#run(fitting === undefined ? "decode" : `decode_${fitting}`, caches, [id], [place]);
  }

  /** Read all of a prompt but its last token. */
  async #prefill(caches, ids) {
    const room = this.graph.cache_length;
    let at = 0;
    while (at < ids.length) {
      const left = ids.length - at;
      const fitting = this.graph.prefill_lengths.filter((size) => size <= room - at);
      const enough = fitting.find((size) => size >= left);
      const smaller = fitting.filter((size) => size <= left).at(-1);
      const size = enough !== undefined && left * 4 >= enough ? enough : smaller;
      if (size === undefined) {
        await this.#step(caches, ids[at], at);
        at += 1;
        continue;
      }
      const count = Math.min(size, left);
      const tokens = [...ids.slice(at, at + count), ...new Array(size - count).fill(0)];
      await this.#run(`prefill_${size}`, caches, tokens, tokens.map((_, n) => at + n));
      at += count;
    }
  }

  /** Yield the logits after so many tokens of a text, which are read as a prompt is, and after each further one. */
  async *read(ids, prefilled) {
    const caches = this.#caches();
    try {
      await this.#prefill(caches, ids.slice(0, prefilled - 1));
      for (let place = prefilled - 1; place < ids.length; place++) yield await this.#step(caches, ids[place], place);
    } finally {
      for (const tensor of Object.values(caches)) tensor.delete();
    }
  }

  /**
   * Yield { id, text } for each new token; text is what it adds that is whole.
   * @param prompt the beginning.
   * @param settings max_new_tokens, seed, sampler and its settings, form, stop (texts), signal (an AbortSignal).
   */
  async *stream(prompt, settings) {
    const fault = faultOf(settings, Object.keys(this.description.forms ?? {}));
    if (fault !== null) throw new RequestError(fault);
    const own = this.tokenizer.encode(prompt);
    const start = this.tokenizer.startId;
    const ids = start === null ? own : [start, ...own];
    if (!ids.length) throw new RequestError("empty");
    if (ids.length >= this.graph.cache_length) throw new RequestError("long");
    const limit = Math.min(settings.max_new_tokens ?? 128, this.graph.cache_length - ids.length);
    const form = settings.form ? this.form(settings.form) : null;
    let formState = form === null ? null : form.begin(own);
    if (form !== null && formState === null) throw new RequestError("form");
    if (form !== null && (form.fewest(formState) ?? 0) > limit) throw new RequestError("short");
    let utf8State = this.utf8 === null ? 0 : this.utf8.after(ids);
    const key = promptKey(BigInt(settings.seed ?? 0), ids);
    const text = own.slice();
    const decoder = new Decoder(this.tokenizer);
    const stops = (settings.stop ?? []).filter(Boolean);
    let shown = "";
    const caches = this.#caches();
    try {
      await this.#prefill(caches, ids.slice(0, -1));
      let last = ids.at(-1);
      for (let drawn = 0; drawn < limit; drawn++) {
        const logits = await this.#step(caches, last, ids.length - 1 + drawn);
        let allowed = this.utf8 === null ? null : this.utf8.allowed(utf8State);
        if (form !== null) {
          const formed = form.allowed(formState, limit - drawn);
          const both = allowed === null ? formed : formed.map((may, id) => may & allowed[id]);
          allowed = both.some(Boolean) ? both : formed;
        }
        const [endId] = this.tokenizer.endIds;
        const id = choose(logits, settings, allowed, text, uniform(key, drawn), endId);
        if (this.tokenizer.endIds.has(id)) {
          yield { id, text: decoder.end() };
          return;
        }
        const added = decoder.add(id);
        shown += added;
        yield { id, text: added };
        if (stops.some((stop) => shown.includes(stop)) || settings.signal?.aborted) return;
        text.push(id);
        if (form !== null) formState = form.follow(formState, id);
        if (this.utf8 !== null) utf8State = this.utf8.next(utf8State, id);
        last = id;
      }
    } finally {
      for (const tensor of Object.values(caches)) tensor.delete();
    }
  }
}
