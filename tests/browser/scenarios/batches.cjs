// A cutover in batches by clicks: a share is shifted, paced, paused between two batches, resumed, and rolled back.
"use strict";

module.exports = async ({ options, facts, signedIn }) => {
  const page = await signedIn();
  const text = async (selector) => (await page.locator(selector).first().innerText()).trim();
  const at = (place) => page.waitForURL(new RegExp(`/cutover/\\d+/${place}/`));
  const states = () => page.locator("[data-batches] [data-batch-title]").allInnerTexts();
  const act = async (name, reason, namespace) => {
    const box = page.locator(`#act-${name}`);
    await box.locator("summary").first().click();
    const said = (await box.locator("[data-consequence]").innerText()).trim();
    await box.locator("input[name=reason]").fill(reason);
    if (namespace) {
      facts.lockedBefore = await box.locator(`button[value=${name}]`).isDisabled();
      await box.locator("input[name=namespace]").fill(namespace);
    }
    await Promise.all([page.waitForNavigation(), box.locator(`button[value=${name}]`).click()]);
    return said;
  };

  await page.goto(`${options.url}/cutover/new/`);
  facts.before = await page.locator("input[name=last]").first().inputValue();
  await page.selectOption("#shift-from", "unbj");
  await page.selectOption("#shift-to", "center");
  await page.fill("#shift-amount", "40");
  await page.waitForSelector("#shift-shown .impact");
  facts.shiftShown = await text("#shift-shown .impact p");
  await page.click("button[value=shift]");
  await at("adjust");
  facts.after = await page.locator("input[name=last]").first().inputValue();
  await page.click("button.primary[value=preview]");
  await at("preview");

  await page.click("#pacing-form > summary");
  await page.fill("#pacing-form input[name=steps]", "30, 60");
  facts.chosenByTyping = await page.locator("#divide-steps").isChecked();
  await page.fill("#bake-s", "6");
  await page.click("#pacing-gate summary");
  for (const limit of ["refused", "back_source", "reconnect", "stragglers"]) await page.fill(`#pacing-gate input[name=${limit}]`, "");
  await page.click("button[value=pacing]");
  await page.waitForLoadState();
  facts.pacing = await text("#pacing .impact p");

  await page.click(".wizard-foot a.primary");
  await at("rules");
  await page.click("button[value=run]");
  await at("precheck");
  await page.waitForSelector(".wizard-foot a.primary");
  await page.click(".wizard-foot a.primary");
  await at("confirm");
  await page.fill("#namespace", "demo");
  await page.click("button[value=start]");
  await at("progress");

  // the first batch moves, then its bake counts down
  await page.waitForFunction(() => document.querySelector("[data-left]").textContent !== "");
  facts.baking = await text("[data-held]");
  facts.whileBaking = await states();
  facts.pauseSaid = await act("pause", "the dashboards first");
  await page.waitForFunction(() => document.querySelector("[data-text=held]").textContent.includes("the dashboards first"));
  facts.paused = await text("[data-text=held]");
  facts.possible = await page.locator("[data-act]:not([hidden])").evaluateAll((all) => all.map((one) => one.dataset.act));
  await page.waitForTimeout(7000); // longer than the bake
  facts.stillPaused = await states();

  facts.resumeSaid = await act("resume", "all is well");
  await page.waitForFunction(() => document.querySelectorAll("[data-batches] .good").length === 2);
  facts.rollBackSaid = await act("roll_back", "errors in the new unit", "demo");
  await page.waitForFunction(() => document.querySelector("[data-state]").textContent.includes("aborted"));
  facts.atTheEnd = await states();
  await page.click("[data-to-report]");
  await at("report");
  facts.outcome = await text(".card h2");
  // clients come back within their own retry time; the nodes remember who has
  for (let asked = 0; asked < 15; asked += 1) {
    await Promise.all([page.waitForNavigation(), page.click("button[value=ask]")]);
    facts.stragglers = await text("#stragglers");
    if (facts.stragglers.includes("has come back")) break;
    await page.waitForTimeout(1000);
  }
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("a[download]")]);
  facts.file = file.suggestedFilename();
  await page.goto(`${options.url}/cutover/new/`);
  facts.given = await page.locator("input[name=last]").first().inputValue();
};
