// Opens a report in Chromium, without a network: a job as JSON on standard input, what was seen as JSON on standard output.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const job = JSON.parse(readFileSync(0, "utf8"));
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const browser = await chromium.launch({ executablePath: job.chromium, args: [...flags, "--disable-component-update"] });
const answer = { errors: [], asked: [], views: {} };

// The contrast of every text with what is painted behind it, as WCAG 2 computes it.
const measure = () => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const below = behind(element);
    const color = rgba(element instanceof SVGElement ? style.fill : style.color);
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    const above = over([color[0], color[1], color[2], color[3] * opacity], below);
    const [high, low] = [luminance(above), luminance(below)].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), node.textContent.trim().slice(0, 40), element.className?.baseVal ?? element.className]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 5);
};

try {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, offline: true, deviceScaleFactor: job.scale ?? 1 });
  for (const [name, colorScheme, width, height] of [
    ["light", "light", 1100, 900],
    ["dark", "dark", 1100, 900],
    ["phone", "light", 390, 844],
    ["phone_dark", "dark", 390, 844],
  ]) {
    const page = await context.newPage();
    page.on("pageerror", (error) => answer.errors.push(`${name}: ${error}`));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && answer.errors.push(`${name}: ${message.text()}`));
    page.on("request", (request) => answer.asked.push(request.url()));
    page.on("dialog", (dialog) => answer.errors.push(`${name}: dialog ${dialog.message()}`) && dialog.dismiss());
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height });
    await page.goto(pathToFileURL(job.page).href);
    const view = (answer.views[name] = {});
    view.title = await page.title();
    view.language = await page.getAttribute("html", "lang");
    view.sections = await page.$$eval("section", (all) => all.map((each) => each.id));
    view.text = await page.evaluate(() => document.body.innerText);
    view.values = await page.$$eval("data", (all) => all.map((each) => [Number(each.value), each.textContent]));
    view.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    view.background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    view.contrast = await page.evaluate(measure);
    view.scripts = await page.$$eval("script", (all) => all.length);
    view.globals = await page.evaluate(() => window.broken === undefined);
    const piece = page.locator(".surprise .text span").nth(job.piece ?? 4);
    if (await piece.count()) {
      await piece.scrollIntoViewIfNeeded();
      await piece.hover();
      view.hover = await page.innerText("#tip");
      view.tip = await page.evaluate(measure);
      if (job.pictures) await page.screenshot({ path: `${job.pictures}/${name}_hover.png` });
      await page.focus(".surprise .text");
      await page.keyboard.press("ArrowRight");
      view.key = await page.innerText("#tip");
      await page.keyboard.press("Escape");
      view.closed = await page.evaluate(() => document.getElementById("tip").hidden);
    }
    const charts = page.locator(".chart svg");
    view.charts = [];
    for (let n = 0; n < (await charts.count()); n += 1) {
      await charts.nth(n).scrollIntoViewIfNeeded();
      await charts.nth(n).hover();
      view.charts.push(await page.innerText("#tip"));
    }
    await page.mouse.move(1, 1);
    if (job.pictures) {
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: `${job.pictures}/${name}.png`, fullPage: job.whole ?? true });
    }
    await page.click("button.theme");
    view.switched = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.evaluate(() => localStorage.clear());
    await page.close();
  }
} finally {
  await browser.close();
}
process.stdout.write(JSON.stringify(answer), () => process.exit(0));
