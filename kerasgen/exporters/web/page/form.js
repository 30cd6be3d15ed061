// Which tokens may come next in a text of a form: an automaton over bytes, met with the tokens' bytes.

const DEAD = -1;

export class Form {
  /**
   * @param description of the automaton: for each state ranges [first byte, last byte, next state], whether a text
   * may end there, and the fewest tokens that complete one; "farthest" is the largest of these, or null if unknown.
   * @param tokenizer whose tokens are met.
   */
  constructor(description, tokenizer) {
    this.states = description.states;
    this.wholeText = description.whole_text;
    this.farthest = description.farthest;
    this.tokenizer = tokenizer;
    this.size = tokenizer.bytes.length;
    this.steps = new Map();
    this.reachedFrom = new Map();
    this.trie = null;
  }

  step(state, byte) {
    let steps = this.steps.get(state);
    if (steps === undefined) {
      steps = new Int32Array(256).fill(DEAD);
      for (const [first, last, next] of this.states[state].steps) steps.fill(next, first, last + 1);
      this.steps.set(state, steps);
    }
    return steps[byte];
  }

  /** The state after a prompt, or null where no text of the form begins with it. */
  begin(ids) {
    if (!this.wholeText) return 0;
    let state = 0;
    for (const id of ids) {
      state = this.follow(state, id);
      if (state === DEAD) return null;
    }
    return this.states[state].steps.length ? state : null;
  }

  follow(state, id) {
    let after = state;
    const bytes = this.tokenizer.shown(id);
    if (!bytes.length) return DEAD;
    for (const byte of bytes) {
      after = this.step(after, byte);
      if (after === DEAD) return DEAD;
    }
    return after;
  }

  /** The state after each token, or -1. */
  reached(state) {
    let found = this.reachedFrom.get(state);
    if (found === undefined) {
      found = new Int32Array(this.size).fill(DEAD);
      this.#walk(this.#root(), state, found);
      if (this.reachedFrom.size >= 512) this.reachedFrom.clear();
      this.reachedFrom.set(state, found);
    }
    return found;
  }

  #root() {
    if (this.trie === null) {
      this.trie = { ids: [], next: new Map() };
      for (let id = 0; id < this.size; id++) {
        let node = this.trie;
        const bytes = this.tokenizer.shown(id);
        for (const byte of bytes) {
          if (!node.next.has(byte)) node.next.set(byte, { ids: [], next: new Map() });
          node = node.next.get(byte);
        }
        if (bytes.length) node.ids.push(id);
      }
    }
    return this.trie;
  }

  #walk(node, state, found) {
    for (const [byte, child] of node.next) {
      const after = this.step(state, byte);
      if (after === DEAD) continue;
      for (const id of child.ids) found[id] = after;
      this.#walk(child, after, found);
    }
  }

  isComplete(state) {
    return this.states[state].accepts;
  }

  /** Which ids may come next so that the text can be completed in the room that is left. */
  allowed(state, remaining) {
    const reached = this.reached(state);
    const allowed = Uint8Array.from(reached, (after) => (after === DEAD ? 0 : 1));
    if (this.isComplete(state)) for (const id of this.tokenizer.endIds) allowed[id] = 1;
    if (this.farthest === null || remaining > this.farthest) return allowed;
    const away = (id) => (reached[id] === DEAD ? -1 : this.states[reached[id]].fewest ?? Infinity);
    let least = Infinity;
    let some = false;
    const inTime = allowed.map((may, id) => {
      if (!may) return 0;
      least = Math.min(least, away(id));
      const holds = away(id) <= remaining - 1 ? 1 : 0;
      some ||= holds === 1;
      return holds;
    });
    return some ? inTime : allowed.map((may, id) => (may && away(id) === least ? 1 : 0));
  }
}

/** Which tokens keep a text valid UTF-8: a table of states by tokens, -1 minus the state where one may not follow. */
export class ValidUtf8 {
  constructor(table, size) {
    this.table = table;
    this.size = size;
  }

  next(state, id) {
    const step = this.table[state * this.size + id];
    return step >= 0 ? step : -1 - step;
  }

  after(ids) {
    return ids.slice(-4).reduce((state, id) => this.next(state, id), 0);
  }

  allowed(state) {
    const row = this.table.subarray(state * this.size, (state + 1) * this.size);
    return Uint8Array.from(row, (step) => (step >= 0 ? 1 : 0));
  }
}
