// node run.cjs SCENARIO < options.json: plays one scenario in a headless Chromium and prints, as one line of JSON, the
// facts it gathered and every error of the browser's console (a breach of the content security policy is one of them).
"use strict";

const path = require("node:path");
const { chromium } = require("playwright-core");

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

async function input() {
  let text = "";
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
}

// A browser of one operator: language, theme and time zone as asked for, signed in.
async function signedIn(browser, options, errors, wishes = {}) {
  const context = await browser.newContext({
    viewport: { width: 1360, height: 860 }, locale: "en-GB", timezoneId: "UTC", ...wishes.context,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on("pageerror", (error) => errors.push(`${page.url()}: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`${page.url()}: ${message.text()}`);
  });
  const role = wishes.role || "operator";
  await page.goto(`${options.url}/admin/login/?next=/`);
  await page.fill("input[name=username]", options.logins[role].user);
  await page.fill("input[name=password]", options.logins[role].password);
  await Promise.all([page.waitForURL(`${options.url}/`), page.click("#login-form button[type=submit]")]);
  if (wishes.language) {
    await page.click(`.language-switch button[value="${wishes.language}"]`);
    await page.waitForFunction((wanted) => document.documentElement.lang === wanted, wishes.language);
  }
  return page;
}

(async () => {
  const options = await input();
  const scenario = require(path.join(__dirname, "scenarios", `${process.argv[2]}.cjs`));
  const browser = await chromium.launch({ executablePath: options.chromium, args: FLAGS });
  const errors = [];
  const facts = {};
  let failure = null;
  try {
    await scenario({
      options, facts, errors, browser,
      signedIn: (wishes) => signedIn(browser, options, errors, wishes),
    });
  } catch (error) {
    failure = error.stack;
    for (const context of browser.contexts()) {
      for (const page of context.pages()) {
        if (options.pictures) await page.screenshot({ path: `${options.pictures}/failed-${process.argv[2]}.png`, fullPage: true }).catch(() => {});
        failure += `\nat ${page.url()}`;
      }
    }
  } finally {
    await browser.close();
  }
  process.stdout.write(`${JSON.stringify({ facts, errors, failure })}\n`);
})();
