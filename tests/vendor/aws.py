"""Looks at, and changes, a Secrets Manager with boto3, independently of kms-sync.

usage: aws.py ENDPOINT REGION KEY_ID SECRET COMMAND [JSON]
  dump             every secret with value, tags, key, versions, deletion
  COMMAND JSON     one client call, e.g. `put_secret_value {"SecretId": ...}`
"""

import json
import sys

import boto3
from botocore.config import Config


def client(endpoint, region, key, secret):
    return boto3.client(
        "secretsmanager",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 1}),
    )


def dump(sm):
    out = {}
    pages = sm.get_paginator("list_secrets").paginate(IncludePlannedDeletion=True)
    for entry in (e for page in pages for e in page["SecretList"]):
        stages = entry.get("SecretVersionsToStages") or {}
        secret = {
            "arn": entry["ARN"],
            "deleted": "DeletedDate" in entry,
            "key": entry.get("KmsKeyId"),
            "tags": {t["Key"]: t["Value"] for t in entry.get("Tags", [])},
            "current": next((v for v, labels in stages.items() if "AWSCURRENT" in labels), None),
            "value": None,
        }
        versions = sm.list_secret_version_ids(SecretId=entry["ARN"], IncludeDeprecated=True)["Versions"] if stages and not secret["deleted"] else []
        secret["versions"] = len(versions)
        if secret["current"] and not secret["deleted"]:
            got = sm.get_secret_value(SecretId=entry["ARN"])
            secret["value"] = got.get("SecretString", "<binary>")
        out[entry["Name"]] = secret
    return out


def main():
    endpoint, region, key, secret, command = sys.argv[1:6]
    sm = client(endpoint, region, key, secret)
    if command == "dump":
        answer = dump(sm)
    else:
        arguments = json.loads(sys.argv[6])
        if "SecretBinary" in arguments:
            arguments["SecretBinary"] = arguments["SecretBinary"].encode()
        answer = getattr(sm, command)(**arguments)
        answer.pop("ResponseMetadata", None)
    print(json.dumps(answer, default=str))


main()
