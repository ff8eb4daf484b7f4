"""boto3 against the sandbox's Secrets Manager and STS.

usage: aws_sandbox.py ENDPOINT REGION KEY_ID SECRET ROLE_ARN
"""

import sys
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, region, key, secret, role = sys.argv[1:6]


def make(service, key=key, secret=secret, token=None):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"max_attempts": 1}, parameter_validation=False),
    )


def refused(code, call, status=400, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, (code, got, error)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status, error.response
        return
    raise AssertionError(f"{call} {arguments} should have been refused with {code}")


sm = make("secretsmanager")

# What kms-sync wrote.
assert sm.get_secret_value(SecretId="ours/A")["SecretString"] == 'line\n"é"🔑'

# Pages.
for i in range(120):
    sm.create_secret(Name=f"boto/page-{i:03}", SecretString="v")
pages = list(sm.get_paginator("list_secrets").paginate(Filters=[{"Key": "name", "Values": ["boto/page-"]}], PaginationConfig={"PageSize": 50}, SortBy="name"))
assert [len(p["SecretList"]) for p in pages] == [50, 50, 20]
names = [s["Name"] for p in pages for s in p["SecretList"]]
assert names == sorted(names) and len(set(names)) == 120
refused("InvalidNextTokenException", sm.list_secrets, NextToken="nonsense")
refused("ValidationException", sm.list_secrets, MaxResults=101)
assert sm.list_secrets(Filters=[{"Key": "name", "Values": ["Boto/"]}])["SecretList"] == []
others = sm.list_secrets(Filters=[{"Key": "name", "Values": ["!boto/"]}])["SecretList"]
assert [s["Name"] for s in others] == ["ours/A"], others

# Versions and tokens.
token = str(uuid.uuid4())
made = sm.create_secret(Name="boto/tagged", SecretString="first", ClientRequestToken=token, Tags=[{"Key": "a", "Value": "1"}])
assert made["VersionId"] == token
again = sm.create_secret(Name="boto/tagged", SecretString="first", ClientRequestToken=token)
assert again["ARN"] == made["ARN"]
refused("ResourceExistsException", sm.create_secret, Name="boto/tagged", SecretString="other", ClientRequestToken=token)
refused("ResourceExistsException", sm.create_secret, Name="boto/tagged", SecretString="first")
second = str(uuid.uuid4())
put = sm.put_secret_value(SecretId="boto/tagged", SecretString="second", ClientRequestToken=second)
assert put["VersionStages"] == ["AWSCURRENT"]
assert sm.put_secret_value(SecretId="boto/tagged", SecretString="second", ClientRequestToken=second)["VersionId"] == second
refused("ResourceExistsException", sm.put_secret_value, SecretId="boto/tagged", SecretString="x", ClientRequestToken=second)
old = sm.put_secret_value(SecretId="boto/tagged", SecretString="first", ClientRequestToken=token)
assert old["VersionStages"] == ["AWSPREVIOUS"], old
assert sm.get_secret_value(SecretId="boto/tagged")["SecretString"] == "second"
assert sm.get_secret_value(SecretId=made["ARN"], VersionStage="AWSPREVIOUS")["SecretString"] == "first"
assert sm.get_secret_value(SecretId=made["ARN"][:-7])["VersionId"] == second
assert len(sm.list_secret_version_ids(SecretId="boto/tagged", IncludeDeprecated=True)["Versions"]) == 2
sm.update_secret_version_stage(SecretId="boto/tagged", VersionStage="AWSCURRENT", RemoveFromVersionId=second, MoveToVersionId=token)
assert sm.get_secret_value(SecretId="boto/tagged")["SecretString"] == "first"
sm.update_secret_version_stage(SecretId="boto/tagged", VersionStage="AWSCURRENT", RemoveFromVersionId=token, MoveToVersionId=second)

# Tags, description, key.
sm.tag_resource(SecretId="boto/tagged", Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}])
sm.untag_resource(SecretId="boto/tagged", TagKeys=["missing", "b"])
described = sm.describe_secret(SecretId="boto/tagged")
assert described["Tags"] == [{"Key": "a", "Value": "2"}] and "KmsKeyId" not in described
assert described["VersionIdsToStages"] == {second: ["AWSCURRENT"], token: ["AWSPREVIOUS"]}
refused("InvalidParameterException", sm.tag_resource, SecretId="boto/tagged", Tags=[{"Key": "aws:x", "Value": ""}])
refused("InvalidParameterException", sm.tag_resource, SecretId="boto/tagged", Tags=[{"Key": f"k{i}", "Value": ""} for i in range(50)])
refused("ValidationException", sm.tag_resource, SecretId="boto/tagged", Tags=[{"Key": "k", "Value": "v" * 257}])
answer = sm.update_secret(SecretId="boto/tagged", KmsKeyId="alias/sandbox", Description="d")
assert "VersionId" not in answer and sm.describe_secret(SecretId="boto/tagged")["KmsKeyId"].startswith("arn:aws:kms:")
sm.update_secret(SecretId="boto/tagged", KmsKeyId="")
assert "KmsKeyId" not in sm.describe_secret(SecretId="boto/tagged")
refused("InvalidParameterException", sm.update_secret, SecretId="boto/tagged", KmsKeyId="sandbox")

# Limits.
refused("ValidationException", sm.create_secret, Name="boto/empty", SecretString="")
refused("ValidationException", sm.create_secret, Name="boto/big", SecretString="a" * 65537)
refused("ValidationException", sm.create_secret, Name="boto/ü", SecretString="a")
refused("ValidationException", sm.create_secret, Name="b" * 513, SecretString="a")
refused("ValidationException", sm.create_secret, Name="boto/token", SecretString="a", ClientRequestToken="short")
refused("ResourceNotFoundException", sm.get_secret_value, SecretId="boto/none")
refused("ResourceNotFoundException", sm.describe_secret, SecretId="boto/none")
refused("ResourceNotFoundException", sm.put_secret_value, SecretId="boto/none", SecretString="a")

# Batch.
ids = [f"boto/page-{i:03}" for i in range(19)] + ["boto/none"]
batch = sm.batch_get_secret_value(SecretIdList=ids)
assert len(batch["SecretValues"]) == 19 and batch["Errors"][0]["ErrorCode"] == "ResourceNotFoundException"
refused("InvalidParameterException", sm.batch_get_secret_value, SecretIdList=ids + ["x"])
refused("InvalidParameterException", sm.batch_get_secret_value)
refused("InvalidParameterException", sm.batch_get_secret_value, SecretIdList=["x"], MaxResults=5)
filtered = sm.batch_get_secret_value(Filters=[{"Key": "name", "Values": ["boto/page-"]}], MaxResults=20)
assert len(filtered["SecretValues"]) == 20 and filtered["NextToken"]

# Deletion and restore.
sm.create_secret(Name="boto/gone", SecretString="a")
sm.create_secret(Name="boto/binary", SecretBinary=b"\x00\xff")
assert sm.get_secret_value(SecretId="boto/binary")["SecretBinary"] == b"\x00\xff"
refused("InvalidParameterException", sm.delete_secret, SecretId="boto/gone", RecoveryWindowInDays=6)
refused("InvalidParameterException", sm.delete_secret, SecretId="boto/gone", RecoveryWindowInDays=7, ForceDeleteWithoutRecovery=True)
sm.delete_secret(SecretId="boto/gone", RecoveryWindowInDays=7)
for call, arguments in [
    (sm.get_secret_value, {}),
    (sm.put_secret_value, {"SecretString": "b"}),
    (sm.update_secret, {"SecretString": "b"}),
    (sm.tag_resource, {"Tags": [{"Key": "a", "Value": "b"}]}),
    (sm.delete_secret, {}),
]:
    refused("InvalidRequestException", call, SecretId="boto/gone", **arguments)
refused("InvalidRequestException", sm.create_secret, Name="boto/gone", SecretString="a")
assert "DeletedDate" in sm.describe_secret(SecretId="boto/gone")
listed = lambda planned: [s["Name"] for s in sm.list_secrets(Filters=[{"Key": "name", "Values": ["boto/gone"]}], IncludePlannedDeletion=planned)["SecretList"]]
assert listed(False) == [] and listed(True) == ["boto/gone"]
sm.restore_secret(SecretId="boto/gone")
assert sm.get_secret_value(SecretId="boto/gone")["SecretString"] == "a"
for name in ["boto/gone", "boto/binary", "boto/never-there"]:
    sm.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
refused("ResourceNotFoundException", sm.describe_secret, SecretId="boto/gone")

# Credentials.
who = make("sts").get_caller_identity()
assert who["Account"] == "123456789012"
session = make("sts").assume_role(RoleArn=role, RoleSessionName="boto")["Credentials"]
assumed = make("secretsmanager", session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])
assert assumed.get_secret_value(SecretId="boto/tagged")["SecretString"] == "second"
refused("UnrecognizedClientException", make("secretsmanager", session["AccessKeyId"], session["SecretAccessKey"]).list_secrets)
refused("UnrecognizedClientException", make("secretsmanager", "AKIANOBODY0000000000").list_secrets)
refused("InvalidSignatureException", make("secretsmanager", secret="wrong").list_secrets)
refused("InvalidClientTokenId", make("sts", "AKIANOBODY0000000000").get_caller_identity, status=403)
refused("AccessDenied", make("sts").assume_role, status=403, RoleArn="arn:aws:iam::123456789012:role/stranger", RoleSessionName="boto")

print("all checks passed")
