#!/usr/bin/env python3
"""kms-sync beside a plain threaded boto3 script, turn by turn on one moto server.

    python3 -m venv target/python && target/python/bin/pip install -r tests/vendor/requirements.txt
    cargo build --release
    target/python/bin/python benches/against_boto3.py [SECRETS] [TURNS]

Each turn takes a fresh region and does both: create all secrets, then a run with nothing to
change. Wall and CPU seconds are of the whole process (os.wait4); only ratios are worth quoting.
"""

import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/kms-sync"
SECRETS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
TURNS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
KEY = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
REGIONS = ["us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "eu-north-1", "ap-south-1"]

PEER = """
import sys, boto3, botocore.config
from concurrent.futures import ThreadPoolExecutor
endpoint, region, n, what = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
c = boto3.client("secretsmanager", endpoint_url=endpoint, region_name=region, aws_access_key_id=%r, aws_secret_access_key=%r,
                 config=botocore.config.Config(max_pool_connections=16))
wanted = {f"boto_{i:05}": f"value number {i}" for i in range(n)}
pages = c.get_paginator("list_secrets").paginate(PaginationConfig={"PageSize": 100})
have = [s["Name"] for page in pages for s in page["SecretList"] if s["Name"].startswith("boto_")]
with ThreadPoolExecutor(16) as pool:
    if what == "create":
        list(pool.map(lambda kv: c.create_secret(Name=kv[0], SecretString=kv[1]), wanted.items()))
    else:
        batches = [have[i:i + 20] for i in range(0, len(have), 20)]
        answers = pool.map(lambda b: c.batch_get_secret_value(SecretIdList=b)["SecretValues"], batches)
        assert sum(wanted[s["Name"]] == s["SecretString"] for a in answers for s in a) == n
""" % KEY


def timed(argv, env=None, quiet=True):
    begun = time.monotonic()
    out = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(argv, env=env, stdout=out, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (argv, status)
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def call(method, url, body, token=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = "Bearer " + token
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main():
    world = subprocess.Popen([BINARY, "demo", "--serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    moto = subprocess.Popen([sys.executable, ROOT / "tests/vendor/moto_server.py", "5599"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        kms = json.loads(world.stdout.readline())["kms"]
        while moto.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", 5599), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        base = kms["baseUrl"]
        token = call("POST", base + "/api/v1/auth/universal-auth/login", {"clientId": kms["clientId"], "clientSecret": kms["clientSecret"]})["accessToken"]
        for start in range(0, SECRETS, 100):
            batch = [{"secretKey": f"key_{i:05}", "secretValue": f"value number {i}"} for i in range(start, min(start + 100, SECRETS))]
            call("POST", base + "/api/v4/secrets/batch", {"projectId": kms["projectId"], "environment": "dev", "secretPath": "/", "secrets": batch}, token)
        home = tempfile.mkdtemp()
        env = dict(os.environ, KMS_SYNC_CONFIG_DIR=home + "/config", KMS_SYNC_STATE_DIR=home + "/state")
        endpoint = "http://127.0.0.1:5599"

        def add(command, document):
            subprocess.run([BINARY, *command, "-f", "-"], input=json.dumps(document), text=True, env=env, check=True, stderr=subprocess.DEVNULL)

        add(["connection", "add"], {"name": "kms", "app": "hanzo-kms", "method": "universal-auth", "baseUrl": base,
                                    "credentials": {"clientId": kms["clientId"], "clientSecret": kms["clientSecret"]}})
        add(["connection", "add"], {"name": "aws", "app": "aws", "method": "access-key", "endpoint": endpoint,
                                    "credentials": {"accessKeyId": KEY[0], "secretAccessKey": KEY[1]}})
        rows = {"create": [], "unchanged": []}
        for turn in range(TURNS):
            region = REGIONS[turn % len(REGIONS)]
            name = "bench-" + region
            add(["create", "--destination", "aws-secrets-manager", "--no-run"], {
                "name": name, "projectId": kms["projectId"], "connectionId": "aws", "environment": "dev", "secretPath": "/", "isEnabled": True,
                "syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": "ours_{{secretKey}}"},
                "destinationConfig": {"region": region, "mappingBehavior": "one-to-one"}})
            for what in ("create", "unchanged"):
                peer = timed([sys.executable, "-c", PEER, endpoint, region, str(SECRETS), what])
                ours = timed([BINARY, "sync", name], env)
                rows[what].append((ours, peer))
        for what, pairs in rows.items():
            for i, figure in ((0, "wall"), (1, "cpu")):
                ratio = statistics.median(peer[i] / ours[i] for ours, peer in pairs)
                ours = statistics.median(o[i] for o, _ in pairs)
                peer = statistics.median(p[i] for _, p in pairs)
                print(f"{what:10} {figure:5} kms-sync {ours:6.2f} s   boto3 {peer:6.2f} s   boto3/kms-sync {ratio:5.2f}")
        history = subprocess.run([BINARY, "history", name, "--json"], env=env, capture_output=True, text=True, check=True)
        for run in reversed(json.loads(history.stdout)["runs"]):
            print("requests", json.dumps(run["requests"]["byCall"]))
    finally:
        world.terminate()
        moto.terminate()


main()
