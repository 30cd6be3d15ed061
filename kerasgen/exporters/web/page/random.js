// Random numbers that depend on the seed, the prompt and the place alone: those of kerasgen.samplers.randomness.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry 2x32, 20 rounds).

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];
const PARITY = 0x1bd11bda;

function threefry(key, counter) {
  const keys = [key[0], key[1], (key[0] ^ key[1] ^ PARITY) >>> 0];
  let x = (counter[0] + keys[0]) >>> 0;
  let y = (counter[1] + keys[1]) >>> 0;
  for (let group = 0; group < 5; group++) {
    for (const rotation of ROTATIONS[group % 2]) {
      x = (x + y) >>> 0;
      y = (((y << rotation) | (y >>> (32 - rotation))) ^ x) >>> 0;
    }
    x = (x + keys[(group + 1) % 3]) >>> 0;
    y = (y + keys[(group + 2) % 3] + group + 1) >>> 0;
  }
  return [x, y];
}

/** The key of a text's numbers, of a seed (a BigInt below 2**64) and the prompt's ids, the start token with them. */
export function promptKey(seed, ids, repeat = 0) {
  const words = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
  let low = 0;
  let high = 0;
  ids.forEach((id, place) => {
    const [x, y] = threefry(words, [place, id]);
    low = (low + x) >>> 0;
    high = (high + y) >>> 0;
  });
  return threefry([low, high], [repeat, 0]);
}

/** The number in [0, 1) that draws a text's n-th generated token, n from 0. */
export function uniform(key, place) {
  return (threefry(key, [place, 0])[0] >>> 8) * 2 ** -24;
}
