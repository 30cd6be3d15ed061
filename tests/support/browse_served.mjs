// Opens a page that a server shows, types as a person does, and tells what was seen: a job and its answer as JSON.

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const job = JSON.parse(readFileSync(0, "utf8"));
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const browser = await chromium.launch({ executablePath: job.chromium, args: [...flags, "--disable-component-update"] });
const answer = { errors: [], foreign: [], texts: [] };
try {
  const context = await browser.newContext({ viewport: { width: 1000, height: 900 }, locale: job.locale });
  await context.addInitScript(() => {
    const Own = Worker; // the ids that the page's worker writes are what is compared
    globalThis.Worker = class extends Own {
      constructor(...given) {
        super(...given);
        globalThis.pieces = [];
        this.addEventListener("message", ({ data }) => {
          if (data.type === "token") globalThis.pieces.push(data.text);
          if (data.type === "end") globalThis.ids = Array.from(data.ids, Number);
        });
      }
    };
  });
  const page = await context.newPage();
  page.on("pageerror", (error) => answer.errors.push(String(error)));
  page.on("response", (response) => response.status() >= 400 && answer.errors.push(response.url()));
  page.on("request", (request) => new URL(request.url()).origin === new URL(job.url).origin || answer.foreign.push(request.url()));
  await page.goto(job.url);
  await page.waitForSelector("body[data-state]", { timeout: 120_000 });
  answer.state = await page.evaluate(() => document.body.dataset.state);
  answer.isolated = await page.evaluate(() => crossOriginIsolated);
  if (job.typed.length) await page.evaluate(() => (document.querySelector("details").open = true));
  for (const { prompt, form, fields } of job.typed) {
    if (form !== undefined) await page.selectOption("#form", form ?? "");
    await page.selectOption("#sampler", fields.sampler);
    await page.setChecked("#anew", false);
    for (const [name, value] of Object.entries(fields)) {
      if (name !== "sampler") await page.fill(`#${name}`, String(value));
    }
    await page.evaluate(() => (globalThis.pieces = []));
    await page.fill("#prompt", "");
    await page.locator("#prompt").pressSequentially(prompt);
    await page.click("#write");
    await page.waitForFunction(() => !document.getElementById("write").disabled, null, { timeout: 60_000 });
    answer.texts.push({
      shown: await page.textContent("#text"),
      status: await page.textContent("#status"),
      ids: await page.evaluate(() => globalThis.ids),
      pieces: await page.evaluate(() => globalThis.pieces.length),
    });
  }
  await page.screenshot({ path: `${job.pictures}/served.png`, fullPage: true });
} finally {
  await browser.close();
}
process.stdout.write(JSON.stringify(answer), () => process.exit(0));
