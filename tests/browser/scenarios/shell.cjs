// What the frame promises: the palette by keyboard, the skip link, the banner of a lost connection.
"use strict";

module.exports = async ({ options, facts, errors, signedIn }) => {
  const page = await signedIn();
  await page.keyboard.press("Tab");
  facts.firstStop = await page.evaluate(() => document.activeElement.className);
  await page.evaluate(() => document.activeElement.blur());

  await page.keyboard.press("Control+k");
  await page.waitForSelector("#search-input-command", { state: "visible" });
  await page.waitForFunction(() => document.activeElement.id === "search-input-command");
  await page.keyboard.type("history", { delay: 20 });
  await page.waitForSelector("#command-results-list li");
  await page.keyboard.press("ArrowDown");
  await Promise.all([page.waitForURL(/\/cutover\/history\//), page.keyboard.press("Enter")]);
  facts.palette = new URL(page.url()).pathname;

  await page.goto(`${options.url}/`);
  const banner = page.locator("#lost-connection");
  facts.lostAtFirst = await banner.isVisible();
  const before = errors.length;
  await page.context().setOffline(true);
  await banner.waitFor({ state: "visible" });
  facts.lostWhenOffline = true;
  await page.context().setOffline(false);
  await banner.waitFor({ state: "hidden" });
  facts.lostAfterwards = await banner.isVisible();
  errors.splice(before); // requests that failed because the line was cut are what was asked for
};
