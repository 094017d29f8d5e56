// Loaded with `node -r`: the names of the document lead to edges on this machine, all others go their usual way.
// MSHA_NAMES is a JSON object of host name to IPv4 address.
const dns = require('dns');

const names = JSON.parse(process.env.MSHA_NAMES);
const lookup = dns.lookup;

dns.lookup = function (host, options, callback) {
  if (typeof options === 'function') {
    callback = options;
    options = {};
  }
  const address = names[host];
  if (address === undefined) {
    return lookup.call(dns, host, options, callback);
  }
  if (options && options.all) {
    return process.nextTick(callback, null, [{ address, family: 4 }]);
  }
  return process.nextTick(callback, null, address, 4);
};
