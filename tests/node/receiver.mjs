// Receiver of the real-payload test: verifies each delivery with npm's `standardwebhooks` and
// appends one JSON line per request to a report. Usage: node receiver.mjs SECRET REPORT
// Prints its port first.
import { createHash } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const [secret, report] = process.argv.slice(2);
const webhook = new Webhook(secret);

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    let error;
    try {
      webhook.verify(body.toString("utf8"), request.headers);
    } catch (cause) {
      error = String(cause);
    }
    const line = {
      id: request.headers["webhook-id"] ?? "",
      sha256: createHash("sha256").update(body).digest("hex"),
      verified: error === undefined,
      error,
    };
    appendFileSync(report, JSON.stringify(line) + "\n");
    response.writeHead(error === undefined ? 204 : 401).end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
