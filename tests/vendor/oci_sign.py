"""Signs captured requests with the signer of Oracle's SDK and prints the signatures.

Argument: a JSON file {"tenancy","user","fingerprint","key","requests":[{"method","url","headers","body"}]};
the body is base64. Prints a JSON array of Authorization headers' signatures.
"""

import base64
import json
import re
import sys

import oci
from oci._vendor import requests

job = json.load(open(sys.argv[1]))
signer = oci.signer.Signer(job["tenancy"], job["user"], job["fingerprint"], None, private_key_content=job["key"])
out = []
for item in job["requests"]:
    body = base64.b64decode(item["body"])
    headers = {name: item["headers"][name] for name in ("date", "host")}
    prepared = requests.Request(item["method"], item["url"], headers=headers, data=body or None).prepare()
    if item["method"] != "GET":
        prepared.headers["content-type"] = "application/json"
        prepared.headers["content-length"] = str(len(body))
    signer(prepared)
    header = prepared.headers["authorization"]
    out.append(re.search(r'signature="([^"]+)"', header).group(1))
print(json.dumps(out))
