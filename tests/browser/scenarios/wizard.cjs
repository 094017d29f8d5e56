// The whole wizard by clicks: adjust, preview, rule text, precheck, confirm, live progress, report.
"use strict";

module.exports = async ({ options, facts, signedIn }) => {
  const page = await signedIn();
  const text = async (selector) => (await page.locator(selector).first().innerText()).trim();
  const at = (place) => page.waitForURL(new RegExp(`/cutover/\\d+/${place}/`));

  await page.click("text=New cutover");
  await page.waitForURL(/\/cutover\/new\//);
  await page.locator("input[name=last]").first().fill(String(options.last));
  facts.sentenceWhileTyping = await text("[data-moved-sentence] p");
  facts.slider = await page.locator("[role=slider]").first().getAttribute("aria-valuenow");
  await page.fill("#reason", "a browser plays the wizard");
  await page.click("button.primary[value=preview]");
  await at("preview");
  facts.impact = await text(".impact p");
  facts.cutover = Number(new URL(page.url()).pathname.split("/")[2]);

  await page.click(".wizard-foot a.primary");
  await at("rules");
  facts.removed = await page.locator("td.removed").allInnerTexts();
  facts.added = await page.locator("td.added").allInnerTexts();

  await page.click("button[value=run]");
  await at("precheck");
  await page.waitForSelector(".wizard-foot a.primary");
  facts.checks = await page.locator(".checks > li").evaluateAll((rows) => rows.map((row) => row.className));

  await page.click(".wizard-foot a.primary");
  await at("confirm");
  const start = page.locator("button[value=start]");
  facts.startText = (await start.innerText()).trim();
  facts.lockedBefore = await start.isDisabled();
  await page.fill("#namespace", "dem");
  facts.lockedWhileWrong = await start.isDisabled();
  await page.fill("#namespace", "demo");
  facts.lockedWhenTyped = await start.isDisabled();

  await start.click();
  await at("progress");
  // what stands on the page from now on must come over the WebSocket: a reload would lose this mark
  await page.evaluate(() => {
    window.stillTheSamePage = true;
    window.bannersAsked = 0;
    document.addEventListener("htmx:beforeRequest", (event) => {
      const asked = event.detail.requestConfig.triggeringEvent;
      if (event.target.id === "banners" && asked && asked.type === "stale") window.bannersAsked += 1;
    });
  });
  await page.waitForSelector("[data-phase=done].done");
  await page.waitForFunction(() => {
    const number = (name) => Number(document.querySelector(`[data-text=${name}]`).textContent);
    return number("sessions_closed") > 0 && number("reconnected") >= number("sessions_closed");
  });
  facts.samePage = await page.evaluate(() => window.stillTheSamePage === true);
  facts.bannersAsked = await page.evaluate(() => window.bannersAsked);
  facts.closed = Number(await text("[data-text=sessions_closed]"));
  facts.reconnected = Number(await text("[data-text=reconnected]"));
  facts.remaining = Number(await text("[data-text=sessions_remaining]"));
  facts.frozenMs = Number(await text("[data-frozen]"));
  facts.state = await text("[data-state] .badge");
  facts.timeline = await page.locator("[data-timeline] li span:last-child").allInnerTexts();

  // late: another window opens the same address, long after the start
  const late = await page.context().newPage();
  await late.goto(page.url());
  await late.waitForSelector("[data-curve] canvas");
  facts.lateTimeline = await late.locator("[data-timeline] li").count();
  await late.close();

  await page.click("[data-to-report]");
  await at("report");
  await page.waitForSelector("[data-curve] canvas");
  facts.outcome = await text(".card h2");
  await page.reload();
  facts.reportAfterReload = await text(".card h2");
  await page.emulateMedia({ media: "print" });
  facts.printed = {
    navigation: await page.locator("#nav-sidebar").isVisible(),
    buttons: await page.locator("[data-print]").isVisible(),
    diff: await page.locator(".diff").isVisible(),
  };
  await page.emulateMedia({ media: "screen" });
  await page.click("button[value=rollback]");
  await at("adjust");
  facts.rollBackLast = await page.locator("input[name=last]").first().inputValue();
  await page.click("button[value=discard]");
  await page.waitForURL(/\/cutover\/$/);
};
