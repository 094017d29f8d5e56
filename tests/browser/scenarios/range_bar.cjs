// The range bar by keyboard and by mouse; the number input is the truth.
"use strict";

module.exports = async ({ options, facts, signedIn }) => {
  const page = await signedIn();
  await page.goto(`${options.url}/cutover/new/`);
  const handle = page.locator("[role=slider]").first();
  const input = page.locator("input[name=last]").first();
  const value = async () => [Number(await input.inputValue()), Number(await handle.getAttribute("aria-valuenow"))];
  const press = async (key) => { await page.keyboard.press(key); return value(); };

  facts.handles = await page.locator("[role=slider]").count();
  facts.label = await handle.getAttribute("aria-label");
  await handle.focus();
  facts.start = await value();
  facts.right = await press("ArrowRight");
  facts.left = await press("ArrowLeft");
  facts.pageUp = await press("PageUp");
  facts.pageDown = await press("PageDown");
  facts.shiftRight = await press("Shift+ArrowRight");
  facts.escape = await press("Escape");
  facts.home = await press("Home");
  facts.end = await press("End");
  facts.escapeAgain = await press("Escape");

  const box = await handle.boundingBox();
  const bar = await page.locator("range-bar svg").first().boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  facts.grabbed = await value();
  await page.mouse.move(x + bar.width / 10, y, { steps: 5 });
  facts.dragged = await value();
  await page.mouse.up();
  await page.mouse.move(x, y);
  facts.released = await value();

  await input.fill("6380");
  facts.typed = await value();
  facts.row = await page.locator("[data-range-row]").nth(1).locator("[data-first]").innerText();
  await page.click("#exact-ids summary");
  await page.locator("#exact-ids input").last().fill("7, 6000, 9998");
  facts.withExact = (await page.locator("[data-moved-sentence] p").innerText()).trim();
  await page.locator("#exact-ids input").last().fill("");
  await input.fill("99999");
  facts.invalid = await input.getAttribute("aria-invalid");
  await page.click("button.primary[value=preview]");
  await page.waitForLoadState();
  facts.refusal = (await page.locator("tr .refusal").first().innerText()).trim();
};
