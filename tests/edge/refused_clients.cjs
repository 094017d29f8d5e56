// Clients with the handlers of the product's document, one for each routerId: `PORT ROUTER_ID...`. Prints as JSON
// what each of them saw until none can be under way any more: the status of an answer, or the name of an event.
const WebSocket = require('ws');

const [port, ...routerIds] = process.argv.slice(2);
const RETRY_MS = 1500;
const seen = {};

function connect(routerId) {
  const ws = new WebSocket(`http://127.0.0.1:${port}/`, [], {
    headers: { routerId, unitType: 'unit_type', Host: 'websocket.test' },
  });
  ws.on('open', () => seen[routerId].push('open'));
  ws.on('error', (error) => seen[routerId].push(`error ${error.code || error.message}`));
  ws.on('close', () => {
    seen[routerId].push('close');
    setTimeout(connect, RETRY_MS, routerId);
  });
  ws.on('unexpected-response', (_, response) => seen[routerId].push(response.statusCode));
}

for (const routerId of routerIds) {
  seen[routerId] = [];
  connect(routerId);
}

function all() {
  return routerIds.every((routerId) => seen[routerId].length);
}

const began = Date.now();
const timer = setInterval(() => {
  if (!all() && Date.now() - began < 10000) {
    return;
  }
  clearInterval(timer);
  // Long enough for a second, wrong connection.
  setTimeout(() => {
    console.log(JSON.stringify(seen));
    process.exit(0);
  }, RETRY_MS + 700);
}, 20);
