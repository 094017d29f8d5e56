// A server of the `ws` package that echoes every message; says its port on standard output, ends with its input.
'use strict';
const [where, limit] = process.argv.slice(2);
const { WebSocketServer } = require(where);

const server = new WebSocketServer({
  host: '127.0.0.1', port: 0, maxPayload: Number(limit), perMessageDeflate: { threshold: 0 },
});
server.on('listening', () => console.log(JSON.stringify({ port: server.address().port })));
server.on('connection', (socket) => {
  socket.on('error', () => {});  // the client knows why
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});
process.stdin.on('end', () => process.exit(0)).resume();
