// Asks the search of built pages in Chromium: a job as JSON on standard input, the links that were found on standard output.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const job = JSON.parse(readFileSync(0, "utf8"));
const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const server = createServer((request, response) => {
  const name = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
  try {
    const bytes = readFileSync(join(job.folder, name));
    response.writeHead(200, { "content-type": KINDS[extname(name)] ?? "application/octet-stream" }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const browser = await chromium.launch({ executablePath: job.chromium, args: flags });
const answer = { errors: [] };
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => answer.errors.push(String(error)));
  for (const query of job.queries) {
    await page.goto(`http://127.0.0.1:${server.address().port}/search.html?q=${encodeURIComponent(query)}`);
    await page.waitForFunction(
      () => /found|did not match/.test(document.querySelector("#search-results p.search-summary")?.textContent ?? ""),
      null,
      { timeout: 60_000 }
    );
    answer[query] = await page.$$eval("#search-results li > a", (links) => links.map((link) => link.getAttribute("href")));
  }
} finally {
  await browser.close();
}
process.stdout.write(JSON.stringify(answer), () => process.exit(0));
