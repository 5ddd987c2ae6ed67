// Verifies messages with npm packages that follow Standard Webhooks.
//
// stdin: a JSON list of {package, secret, headers, body}. stdout: for each {payload} or {error},
// the name of the error's class. The packages are those of the working directory.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);

function answer({ package: name, secret, headers, body }) {
  const { Webhook } = require(name);
  try {
    return { payload: new Webhook(secret).verify(body, headers) };
  } catch (error) {
    return { error: error.constructor.name, message: error.message };
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(answer)));
