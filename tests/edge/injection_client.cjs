// Collects the messages of one session, with Node's `ws` or in Chromium, until the last one of the back-source;
// prints {"extensions", "messages", "closed"} as JSON. Arguments: ws|chromium URL LAST [EXECUTABLE HOST_RULE]
const [kind, url, last, executable, rule] = process.argv.slice(2);

function done(result) {
  console.log(JSON.stringify(result));
}

if (kind === 'ws') {
  const WebSocket = require('ws');
  const host = new URL(url).hostname;
  const socket = new WebSocket(url, {
    perMessageDeflate: true,
    lookup: (name, options, callback) => {
      const found = { address: '127.0.0.1', family: 4 };
      options.all ? callback(null, [found]) : callback(null, found.address, found.family);
    },
    headers: { Host: host },
  });
  const messages = [];
  socket.on('message', (data) => {
    messages.push(data.toString());
    if (data.toString().startsWith(last)) socket.close(1000);
  });
  socket.on('close', (code) => done({ extensions: socket.extensions, messages, closed: code }));
  socket.on('error', (error) => done({ error: String(error), messages }));
} else {
  const { chromium } = require('playwright-core');
  (async () => {
    const browser = await chromium.launch({
      executablePath: executable,
      args: ['--no-sandbox', `--host-resolver-rules=${rule}`],
    });
    const page = await browser.newPage();
    const collect = ([address, end]) =>
      new Promise((resolve) => {
        const socket = new WebSocket(address);
        const messages = [];
        socket.onmessage = (event) => {
          messages.push(event.data);
          if (event.data.startsWith(end)) socket.close(1000);
        };
        socket.onclose = (event) => resolve({ extensions: socket.extensions, messages, closed: event.code });
      });
    done(await page.evaluate(collect, [url, last]));
    await browser.close();
  })();
}
