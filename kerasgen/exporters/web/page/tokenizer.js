// Byte-level byte-pair encoding, with the ids of the Python package on every text.

const encoder = new TextEncoder();

/** The printable characters that stand for bytes in a vocabulary, in the manner of GPT-2. */
function charactersOfBytes() {
  const found = new Array(256);
  let other = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    found[byte] = String.fromCodePoint(printable ? byte : 256 + other++);
  }
  return found;
}

/** The regular expression of a cut whose classes are written \p{L}, \p{N} and \s. */
function pattern(cut) {
  const inside = { "\\p{L}": cut.letters, "\\p{N}": cut.numbers, "\\s": cut.spaces };
  let source = "";
  let bracketed = false;
  for (let at = 0; at < cut.pattern.length; at++) {
    const three = cut.pattern.slice(at, at + 5);
    const two = cut.pattern.slice(at, at + 2);
    const name = three in inside ? three : two in inside ? two : null;
    if (name !== null) {
      source += bracketed ? inside[name] : `[${inside[name]}]`;
      at += name.length - 1;
    } else if (two === "\\S") {
      source += `[^${cut.spaces}]`;
      at += 1;
    } else {
      if (cut.pattern[at] === "[") bracketed = true;
      if (cut.pattern[at] === "]") bracketed = false;
      source += cut.pattern[at];
    }
  }
  return new RegExp(source, "gu");
}

export class Tokenizer {
  /** @param description what the exporter wrote: vocabulary, merges, cut, added and special tokens. */
  constructor(description) {
    this.characters = charactersOfBytes();
    this.ids = new Map(Object.entries(description.vocabulary));
    this.startId = description.start_token_id;
    this.endIds = new Set(description.end_token_ids);
    this.special = new Set(description.special_token_ids);
    this.ignoreMerges = description.cut.ignore_merges;
    this.singleDigits = description.cut.single_digits;
    this.cut = pattern(description.cut);
    this.numbers = new RegExp(`([${description.cut.numbers}])`, "u");
    this.ranks = new Map(description.merges.map((merge, rank) => [merge, rank]));
    this.added = [...description.added_tokens].sort((a, b) => b.length - a.length);
    const bytes = new Map(this.characters.map((character, byte) => [character, byte]));
    const named = new Set([...this.special, ...this.added.map((name) => this.ids.get(name))]);
    this.bytes = [];
    for (const [token, id] of this.ids) {
      const letters = [...token];
      const isBytes = !named.has(id) && letters.every((letter) => bytes.has(letter));
      this.bytes[id] = isBytes ? Uint8Array.from(letters, (letter) => bytes.get(letter)) : encoder.encode(token);
    }
    this.cache = new Map();
  }

  /** The ids of a text, without a start token. */
  encode(text) {
    const ids = [];
    for (const [piece, isAdded] of this.#split(text)) {
      if (isAdded) ids.push(this.ids.get(piece));
      else for (const word of this.#words(piece)) ids.push(...this.#merged(word));
    }
    return ids;
  }

  *#split(text) {
    let from = 0;
    for (let at = 0; at < text.length && this.added.length; ) {
      const name = this.added.find((each) => text.startsWith(each, at));
      if (name === undefined) {
        at++;
        continue;
      }
      if (at > from) yield [text.slice(from, at), false];
      yield [name, true];
      at += name.length;
      from = at;
    }
    if (from < text.length) yield [text.slice(from), false];
  }

  *#words(text) {
    const pieces = this.singleDigits ? text.split(this.numbers).filter(Boolean) : [text];
    for (const piece of pieces) {
      let from = 0;
      for (const match of piece.matchAll(this.cut)) {
        if (match.index > from) yield piece.slice(from, match.index);
        if (match[0]) yield match[0];
        from = match.index + match[0].length;
      }
      if (from < piece.length) yield piece.slice(from);
    }
  }

  #merged(word) {
    const known = this.cache.get(word);
    if (known) return known;
    const letters = Array.from(encoder.encode(word), (byte) => this.characters[byte]);
    let parts = letters;
    if (this.ignoreMerges && this.ids.has(letters.join(""))) parts = [letters.join("")];
    while (parts.length > 1) {
      let best = Infinity;
      let pair = null;
      for (let n = 0; n + 1 < parts.length; n++) {
        const rank = this.ranks.get(`${parts[n]} ${parts[n + 1]}`);
        if (rank !== undefined && rank < best) {
          best = rank;
          pair = [parts[n], parts[n + 1]];
        }
      }
      if (pair === null) break;
      const joined = [];
      for (let n = 0; n < parts.length; n++) {
        if (parts[n] === pair[0] && parts[n + 1] === pair[1]) {
          joined.push(pair[0] + pair[1]);
          n++;
        } else joined.push(parts[n]);
      }
      parts = joined;
    }
    const ids = parts.map((part) => this.ids.get(part)).filter((id) => id !== undefined);
    if (this.cache.size < 20000) this.cache.set(word, ids);
    return ids;
  }

  /** The bytes that an id adds to a text; none for a special token. */
  shown(id) {
    return this.special.has(id) || this.bytes[id] === undefined ? new Uint8Array(0) : this.bytes[id];
  }
}

/** Makes text of ids as they come: a character is shown once it is whole. */
export class Decoder {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  add(id) {
    return this.decoder.decode(this.tokenizer.shown(id), { stream: true });
  }

  end() {
    return this.decoder.decode();
  }
}
