// A losing node is lost: its check fails, is skipped with a reason, the cutover waits for it by name, and is aborted.
"use strict";

module.exports = async ({ options, facts, signedIn }) => {
  const page = await signedIn();
  const at = (place) => page.waitForURL(new RegExp(`/cutover/\\d+/${place}/`));
  await page.goto(`${options.url}/cutover/new/`);
  await page.locator("input[name=last]").first().fill(String(options.last));
  await page.click("button.primary[value=preview]");
  await at("preview");
  facts.impact = (await page.locator(".impact p").first().innerText()).trim();
  await page.click(".wizard-foot a.primary");
  await page.click("button[value=run]");
  await at("precheck");
  await page.waitForSelector("#precheck:has(.checks > li.failed):not(:has(.checks > li.running)):not(:has(.checks > li.pending))");
  facts.locked = await page.locator(".wizard-foot a.primary").count();
  facts.failed = await page.locator(".checks > li.failed .reason").allInnerTexts();

  // each failed check: skip it, with a reason
  for (;;) {
    const failed = page.locator(".checks > li.failed details.skip-form").first();
    if (!(await failed.count())) break;
    await failed.locator("summary").click();
    await failed.locator("input[name=reason]").fill("the node burns, we must leave");
    await failed.locator("button[value=skip]").click();
    await at("precheck");
    await page.waitForLoadState("load");
  }
  facts.skipped = await page.locator(".checks > li.skipped").count();
  await page.click(".wizard-foot a.primary");
  await at("confirm");
  facts.warned = (await page.locator(".refusal.box").innerText()).trim();
  await page.fill("#namespace", "demo");
  await page.click("button[value=start]");
  await at("progress");
  await page.waitForFunction((name) => document.querySelector("[data-text=waiting]").textContent.includes(name), options.node);
  facts.waiting = (await page.locator("[data-text=waiting]").innerText()).trim();
  facts.highlighted = await page.locator("tr[data-node].current").evaluateAll((rows) => rows.map((row) => row.dataset.node));
  const abort = page.locator("[data-act=abort]");
  await abort.locator("summary").first().click();
  facts.consequence = (await abort.locator("p").first().innerText()).trim();
  await abort.locator("input[name=reason]").fill("it is not coming back");
  await abort.locator("button[value=abort]").click();
  await page.waitForFunction(() => document.querySelector("[data-state]").textContent.includes("aborted"));
  await page.click("[data-to-report]");
  await at("report");
  facts.outcome = (await page.locator(".card h2").first().innerText()).trim();
};
