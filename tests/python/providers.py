"""The providers' side of the library test: signs and verifies webhooks with their official libraries.

Reads a JSON list of jobs from standard input, writes the list of results to standard output.
"""

import json
import sys
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from multidict import MultiDict
from slack_sdk.signature import Clock, SignatureVerifier
from twilio.request_validator import RequestValidator

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Fixed(Clock):
    def __init__(self, now):
        self.at = now

    def now(self):
        return self.at


def form(job):
    return MultiDict(parse_qsl(job["body"], keep_blank_values=True))


def slack(job):
    return SignatureVerifier(job["secret"], Fixed(job["now"]))


def key_set():
    key = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
    return json.dumps({"keys": [{**key, "kid": "k1", "alg": "RS256", "use": "sig"}]})


def claims(job):
    return {
        "iss": "https://accounts.google.com",
        "aud": job["url"],
        "exp": job["now"] + 3600,
        "iat": job["now"],
        "email": "push@example.iam.gserviceaccount.com",
        "email_verified": True,
    }


LIBRARIES = {
    ("slack", "sign"): lambda job: {
        "x-slack-request-timestamp": str(job["now"]),
        "x-slack-signature": slack(job).generate_signature(
            timestamp=str(job["now"]), body=job["body"]
        ),
    },
    ("slack", "verify"): lambda job: slack(job).is_valid_request(job["body"], job["headers"]),
    ("twilio", "sign"): lambda job: {
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": RequestValidator(job["secret"]).compute_signature(
            job["url"], form(job)
        ),
    },
    ("twilio", "verify"): lambda job: RequestValidator(job["secret"]).validate(
        job["url"], form(job), job["headers"]["x-twilio-signature"]
    ),
    ("monday", "sign"): lambda job: {
        "authorization": jwt.encode(
            {"aud": job["url"], "exp": job["now"] + 300}, job["secret"], "HS256"
        ),
    },
    ("gmail", "sign"): lambda job: {
        "jwks": key_set(),
        "authorization": "Bearer "
        + jwt.encode(claims(job), KEY, "RS256", headers={"kid": "k1"}),
    },
}


def result(job):
    try:
        return LIBRARIES[job["library"], job["task"]](job)
    except Exception as error:  # a library may say "no" by raising
        return {"error": repr(error)}


json.dump([result(job) for job in json.load(sys.stdin)], sys.stdout)
