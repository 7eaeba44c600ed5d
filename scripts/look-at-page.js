// Opens a mount's page of figures in a browser, as tests and people do who want to see it:
//   node look-at-page.js URL SECONDS PICTURE [light|dark]
// Writes the picture after so many seconds, and on standard output what the page says, as JSON: its first line, the
// captions of its charts, and whatever the browser complained of. Needs playwright-core and Chromium (scripts/deps page).
"use strict";
const { chromium } = require("playwright-core");

async function main() {
  const [url, seconds, picture, scheme = "light"] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ colorScheme: scheme, viewport: { width: 1160, height: 900 } });
    const complaints = [];
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("request", (request) => { if (!request.url().startsWith(url)) complaints.push("asked for " + request.url()); });
    await page.goto(url);
    await page.waitForTimeout(Number(seconds) * 1000);
    const said = {
      first: await page.locator("h1").innerText(),
      alarm: await page.locator("#alarm").innerText(),
      title: await page.title(),
      how: await page.locator("main").getAttribute("class"),
      charts: await page.locator("figcaption").allInnerTexts(),
      complaints,
    };
    await page.screenshot({ path: picture, fullPage: true });
    console.log(JSON.stringify(said, null, 1));
  } finally {
    await browser.close();
  }
}
main().catch((error) => { console.error(error); process.exit(1); });
