// Verifies one message with svix, as a subscriber's server for Node would.
// In: {"secret", "headers", "body"}; out: what the library returns. It throws for a forged message.

const { Webhook } = require("svix");

let text = "";
process.stdin.on("data", (chunk) => (text += chunk));
process.stdin.on("end", () => {
  const { secret, headers, body } = JSON.parse(text);
  console.log(JSON.stringify(new Webhook(secret).verify(body, headers)));
});
