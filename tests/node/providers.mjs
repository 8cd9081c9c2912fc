// The providers' side of the library test: signs and verifies webhooks with their official libraries.
// Reads a JSON list of jobs from standard input, writes the list of results to standard output.
import hubspot from "@hubspot/api-client";
import { sign as githubSign, verify as githubVerify } from "@octokit/webhooks-methods";
import sendgrid from "@sendgrid/eventwebhook";
import { Webhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";

const stripe = new Stripe("sk_test_none");
const { EventWebhook } = sendgrid;

// HubSpot signs the URL with these escapes decoded.
const decoded = (url) =>
  url.replace(/%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)/gi, (escape) => decodeURIComponent(escape));

const libraries = {
  github: {
    sign: async (job) => ({ "x-hub-signature-256": await githubSign(job.secret, job.body) }),
    verify: (job) => githubVerify(job.secret, job.body, job.headers["x-hub-signature-256"]),
  },
  stripe: {
    sign: (job) => ({
      "stripe-signature": stripe.webhooks.generateTestHeaderString({
        payload: job.body,
        secret: job.secret,
        timestamp: job.now,
      }),
    }),
    verify: (job) =>
      stripe.webhooks.signature.verifyHeader(
        job.body,
        job.headers["stripe-signature"],
        job.secret,
        300,
        undefined,
        job.now * 1000,
      ),
  },
  standard_webhooks: {
    sign: (job) => ({
      "webhook-id": "msg_1",
      "webhook-timestamp": String(job.now),
      "webhook-signature": new Webhook(job.secret).sign("msg_1", new Date(job.now * 1000), job.body),
    }),
    verify: (job) => {
      new Webhook(job.secret).verify(job.body, job.headers);
      return true;
    },
  },
  svix: {
    sign: (job) => ({
      "webhook-id": "msg_1",
      "webhook-timestamp": String(job.now),
      "webhook-signature": new SvixWebhook(job.secret).sign("msg_1", new Date(job.now * 1000), job.body),
    }),
    verify: (job) => {
      new SvixWebhook(job.secret).verify(job.body, job.headers);
      return true;
    },
  },
  hubspot: {
    sign: (job) => ({
      "x-hubspot-request-timestamp": String(job.now * 1000),
      "x-hubspot-signature-v3": hubspot.Signature.getSignature("POST", "v3", {
        clientSecret: job.secret,
        url: decoded(job.url),
        requestBody: job.body,
        timestamp: job.now * 1000,
      }),
    }),
    verify: (job) =>
      hubspot.Signature.isValid({
        method: "POST",
        signatureVersion: "v3",
        clientSecret: job.secret,
        url: decoded(job.url),
        requestBody: job.body,
        timestamp: Number(job.headers["x-hubspot-request-timestamp"]),
        signature: job.headers["x-hubspot-signature-v3"],
      }),
  },
  sendgrid: {
    // SendGrid's library verifies only.
    verify: (job) => {
      const webhook = new EventWebhook();
      return webhook.verifySignature(
        webhook.convertPublicKeyToECDSA(job.secret),
        job.body,
        job.headers["x-twilio-email-event-webhook-signature"],
        job.headers["x-twilio-email-event-webhook-timestamp"],
      );
    },
  },
};

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const jobs = JSON.parse(Buffer.concat(chunks).toString("utf8"));
const results = [];
for (const job of jobs) {
  Date.now = () => job.now * 1000;
  const library = libraries[job.library];
  try {
    results.push(await library[job.task](job));
  } catch (error) {
    // A library says "no" by throwing; what it threw is kept for people.
    results.push({ error: String(error) });
  }
}
process.stdout.write(JSON.stringify(results));
