// Which tokens may come next in a text of a form: an automaton over bytes, met with the tokens' bytes.

const DEAD = -1;

/** An automaton that is written down byte by byte. */
class Bytes {
  constructor(description) {
    this.states = description.states;
    this.stepsOf = new Map();
  }

  step(state, byte) {
    let steps = this.stepsOf.get(state);
    if (steps === undefined) {
      steps = new Int32Array(256).fill(DEAD);
      for (const [first, last, next] of this.states[state].steps) steps.fill(next, first, last + 1);
      this.stepsOf.set(state, steps);
    }
    return steps[byte];
  }

  accepts(state) {
    return this.states[state].accepts;
  }

  fewest(state) {
    return this.states[state].fewest;
  }

  goesOn(state) {
    return this.states[state].steps.length > 0;
  }
}

/**
 * An automaton over classes of characters: a state is one between characters, with a node of the tree of the classes'
 * bytes. Its number is that of the state where the node is the root; others get theirs as they are reached.
 */
class Characters {
  constructor(description) {
    this.states = description.states;
    this.inside = description.inside;
    this.trees = description.trees.map((nodes) => nodes.map((runs) => this.#children(runs)));
    this.below = this.trees.map(belowOf);
    this.missing = this.trees.map(missingOf);
    this.targetsOf = new Map();
    this.places = this.states.map((_, state) => [state, 0]);
    this.numbers = new Map();
    this.fewestOf = new Map();
  }

  #children(runs) {
    const children = new Map();
    for (const [first, last, after] of runs) {
      for (let byte = first; byte <= last; byte++) children.set(byte, after);
    }
    return children;
  }

  /** Where each class leads. */
  #targets(state) {
    let targets = this.targetsOf.get(state);
    if (targets === undefined) {
      targets = new Map();
      for (const [target, ...ranges] of this.states[state].targets) {
        for (let at = 0; at < ranges.length; at += 2) {
          for (let number = ranges[at]; number <= ranges[at + 1]; number++) targets.set(number, target);
        }
      }
      this.targetsOf.set(state, targets);
    }
    return targets;
  }

  step(number, byte) {
    const [state, node] = this.places[number];
    const { tree } = this.states[state];
    const after = this.trees[tree][node].get(byte);
    if (after === undefined) return DEAD;
    const targets = this.#targets(state);
    if (after < 0) return targets.get(-1 - after) ?? DEAD;
    if (!this.below[tree][after].some((found) => targets.has(found))) return DEAD;
    const key = state * this.trees[tree].length + after;
    let found = this.numbers.get(key);
    if (found === undefined) {
      found = this.places.length;
      this.places.push([state, after]);
      this.numbers.set(key, found);
    }
    return found;
  }

  accepts(number) {
    return number < this.states.length && this.states[number].accepts;
  }

  fewest(number) {
    if (number < this.states.length) return this.states[number].fewest;
    let fewest = this.fewestOf.get(number);
    if (fewest === undefined) {
      const [state, node] = this.places[number];
      const { tree } = this.states[state];
      const targets = this.#targets(state);
      const leads = new Set();
      for (const found of this.below[tree][node]) {
        if (targets.has(found)) leads.add(this.states[targets.get(found)].like);
      }
      const key = [this.missing[tree][node], ...[...leads].sort((one, other) => one - other)].join(",");
      fewest = this.inside[key] ?? null;
      this.fewestOf.set(number, fewest);
    }
    return fewest;
  }

  goesOn(number) {
    return number >= this.states.length || this.states[number].targets.length > 0;
  }
}

/** The classes below each node; children have higher numbers than their parents. */
function belowOf(nodes) {
  const below = nodes.map(() => []);
  for (let node = nodes.length - 1; node >= 0; node--) {
    const found = new Set();
    for (const after of nodes[node].values()) {
      if (after < 0) found.add(-1 - after);
      else for (const each of below[after]) found.add(each);
    }
    below[node] = [...found];
  }
  return below;
}

/** How many bytes of a character are missing at each node. */
function missingOf(nodes) {
  const missing = nodes.map(() => 0);
  for (let node = nodes.length - 1; node >= 0; node--) {
    for (const after of nodes[node].values()) missing[node] = after < 0 ? 1 : missing[after] + 1;
  }
  return missing;
}

export class Form {
  /**
   * @param description of the automaton, by bytes or by classes of characters: whether a text may end at each state,
   * and the fewest tokens that complete one; "farthest" is the largest of these, or null if unknown.
   * @param tokenizer whose tokens are met.
   */
  constructor(description, tokenizer) {
    this.automaton = description.trees ? new Characters(description) : new Bytes(description);
    this.wholeText = description.whole_text;
    this.farthest = description.farthest;
    this.tokenizer = tokenizer;
    this.size = tokenizer.bytes.length;
    this.reachedFrom = new Map();
    this.trie = null;
  }

  step(state, byte) {
    return this.automaton.step(state, byte);
  }

  /** The fewest tokens that complete a text from a state, or null if unknown. */
  fewest(state) {
    return this.automaton.fewest(state);
  }

  /** The state after a prompt, or null where no text of the form begins with it. */
  begin(ids) {
    if (!this.wholeText) return 0;
    let state = 0;
    for (const id of ids) {
      state = this.follow(state, id);
      if (state === DEAD) return null;
    }
    return this.automaton.goesOn(state) ? state : null;
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
    return this.automaton.accepts(state);
  }

  /** Which ids may come next so that the text can be completed in the room that is left. */
  allowed(state, remaining) {
    const reached = this.reached(state);
    const allowed = Uint8Array.from(reached, (after) => (after === DEAD ? 0 : 1));
    if (this.isComplete(state)) for (const id of this.tokenizer.endIds) allowed[id] = 1;
    if (this.farthest === null || remaining > this.farthest) return allowed;
    const away = (id) => (reached[id] === DEAD ? -1 : this.fewest(reached[id]) ?? Infinity);
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
