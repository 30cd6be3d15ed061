// Opens an exported page in Chromium: a job as JSON on standard input, and what was seen as JSON on standard output.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const job = JSON.parse(readFileSync(0, "utf8"));
const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json" };
const asked = [];
const server = createServer((request, response) => {
  const name = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)).replace(/\/$/, "/index.html");
  asked.push(name);
  try {
    const bytes = readFileSync(join(job.folder, name));
    response.writeHead(200, { "content-type": KINDS[extname(name)] ?? "application/octet-stream" }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const browser = await chromium.launch({ executablePath: job.chromium, args: [...flags, "--disable-component-update"] });
const answer = { generated: [], errors: [] };
try {
  const context = await browser.newContext({ viewport: { width: 1000, height: 900 }, locale: job.locale });
  const page = await context.newPage();
  page.on("pageerror", (error) => answer.errors.push(String(error)));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForSelector("body[data-state]", { timeout: 120_000 });
  answer.state = await page.evaluate(() => document.body.dataset.state);
  answer.title = await page.textContent("#title");
  answer.ready = await page.textContent("#status");
  for (const request of job.requests) {
    const [prompt, settings] = request;
    answer.generated.push(await page.evaluate(([p, s]) => kerasgen.generate(p, s).then((r) => r.ids ?? r.text), [prompt, settings]));
  }
  if (job.form) await page.selectOption("#form", job.form);
  await page.fill("#prompt", job.typed);
  await page.click("#write");
  await page.waitForFunction(() => !document.getElementById("write").disabled, null, { timeout: 60_000 });
  answer.shown = await page.textContent("#text");
  answer.speed = await page.textContent("#status");
  await page.screenshot({ path: `${job.pictures}/light.png` });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: `${job.pictures}/dark.png` });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: `${job.pictures}/phone.png` });
  answer.overflows = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  answer.missing = asked.filter((name) => name.includes("favicon"));
  await page.waitForFunction(
    (count) => caches.keys().then(async ([name]) => name && (await (await caches.open(name)).keys()).length >= count),
    job.files,
    { timeout: 60_000 }
  );
  await new Promise((resolve) => server.close(resolve) || server.closeAllConnections());
  await page.reload();
  await page.waitForSelector("body[data-state]", { timeout: 60_000 });
  const [prompt, settings] = job.requests[0];
  answer.offline = await page.evaluate(([p, s]) => kerasgen.generate(p, s).then((r) => r.ids ?? r.text), [prompt, settings]);
} finally {
  await browser.close();
}
process.stdout.write(JSON.stringify(answer), () => process.exit(0));
