// Every page of the navigation, in both languages, light and dark: nothing in the console, nothing wider than the page.
"use strict";

module.exports = async ({ options, facts, signedIn }) => {
  facts.visited = [];
  facts.wide = [];
  facts.refused = [];
  facts.lit = [];
  for (const [language, colorScheme, timezoneId] of [["en", "light", "UTC"], ["zh-hans", "dark", "Asia/Shanghai"]]) {
    const page = await signedIn({ role: "admin", language, context: { colorScheme, timezoneId } });
    page.on("response", (answer) => { if (answer.status() >= 400) facts.refused.push(`${answer.status()} ${answer.url()}`); });
    const links = await page.locator("#nav-sidebar-apps a").evaluateAll((all) => all.map((link) => link.href));
    const adding = [];
    for (const link of [...links, ...options.more.map((path) => options.url + path)]) {
      await page.goto(link);
      await page.waitForLoadState("load");
      facts.visited.push(new URL(link).pathname);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 1) facts.wide.push(`${new URL(link).pathname} by ${wide}px`);
      const lit = await page.locator("#nav-sidebar-apps a.active").count();
      if (lit !== 1 && links.includes(link)) facts.lit.push(`${new URL(link).pathname}: ${lit}`);
      for (const add of await page.locator("a[href$='/add/']").evaluateAll((all) => all.map((one) => one.href))) {
        if (!adding.includes(add)) adding.push(add);
      }
    }
    for (const link of adding) {
      await page.goto(link);
      facts.visited.push(new URL(link).pathname);
      const unnamed = await page.locator("#content form").evaluateAll((forms) => forms.flatMap((form) => [...form.querySelectorAll("input:not([type=hidden]), select, textarea")])
        .filter((field) => field.offsetParent !== null && !field.labels?.length && !field.getAttribute("aria-label") && !field.getAttribute("aria-labelledby") && !field.title)
        .map((field) => field.name));
      if (unnamed.length) (facts.unnamed ||= []).push(`${new URL(link).pathname}: ${unnamed.join(", ")}`);
    }
    await page.context().close();
  }
};
