"""Drives the sandbox with Oracle's Python SDK.

Arguments: URL, management URL, a JSON file {"config","compartment","vault","key"}, and what to do:
`all` walks through the whole life of secrets; `read` prints names and values; `write` puts some.
"""

import base64
import datetime
import json
import sys

import oci
from oci.exceptions import ServiceError
from oci.key_management import KmsManagementClient, KmsVaultClient
from oci.secrets import SecretsClient
from oci.vault import VaultsClient, VaultsClientCompositeOperations
from oci.vault import models

url, management, facts, what = sys.argv[1:5]
facts = json.load(open(facts))
config, compartment, vault, key = facts["config"], facts["compartment"], facts["vault"], facts["key"]
quiet = {"retry_strategy": oci.retry.NoneRetryStrategy()}
identity = oci.identity.IdentityClient(config, service_endpoint=url, **quiet)
kms_vaults = KmsVaultClient(config, service_endpoint=url, **quiet)
kms_keys = KmsManagementClient(config, service_endpoint=management, **quiet)
vaults = VaultsClient(config, service_endpoint=url, **quiet)
values = SecretsClient(config, service_endpoint=url, **quiet)
composite = VaultsClientCompositeOperations(vaults)


def content(text, **more):
    return models.Base64SecretContentDetails(content=base64.b64encode(text.encode()).decode(), **more)


def create(name, text, **more):
    details = models.CreateSecretDetails(
        compartment_id=compartment, vault_id=vault, key_id=key, secret_name=name, secret_content=content(text), enable_auto_generation=False, **more
    )
    waiter = {"max_interval_seconds": 1, "max_wait_seconds": 20}
    return composite.create_secret_and_wait_for_state(details, wait_for_states=["ACTIVE"], waiter_kwargs=waiter).data


def settle(id, state):
    return oci.wait_until(vaults, vaults.get_secret(id), "lifecycle_state", state, max_interval_seconds=1, max_wait_seconds=20).data


def listed():
    return oci.pagination.list_call_get_all_results(vaults.list_secrets, compartment, vault_id=vault, limit=2).data


def value(id):
    return base64.b64decode(values.get_secret_bundle(id).data.secret_bundle_content.content).decode()


def refused(status, code, call):
    try:
        call()
    except ServiceError as error:
        assert (error.status, error.code) == (status, code), (error.status, error.code, error.message)
        return error.message
    raise AssertionError(f"{status} {code} expected")


def everything():
    assert identity.get_user(config["user"]).data.id == config["user"]
    assert identity.get_tenancy(config["tenancy"]).data.name
    tree = oci.pagination.list_call_get_all_results(
        identity.list_compartments, config["tenancy"], compartment_id_in_subtree=True, access_level="ANY", lifecycle_state="ACTIVE", limit=1
    ).data
    assert compartment in [c.id for c in tree] and len(tree) >= 3
    assert [v.id for v in kms_vaults.list_vaults(compartment).data] == [vault]
    assert kms_vaults.get_vault(vault).data.management_endpoint
    assert [k.id for k in kms_keys.list_keys(compartment, algorithm="AES").data] == [key]
    assert kms_keys.get_key(key).data.key_shape.algorithm == "AES"

    made = [create(f"sdk-{n}", f"value {n}", freeform_tags={"by": "sdk"}).id for n in range(5)]
    assert {s.id for s in listed()} >= set(made)
    assert value(made[3]) == "value 3"
    assert "already exists" in refused(400, "InvalidParameter", lambda: create("sdk-0", "again"))

    # A change settles: meanwhile the next one is refused, and the old value is read.
    vaults.update_secret(made[0], models.UpdateSecretDetails(secret_content=content("new")))
    refused(409, "IncorrectState", lambda: vaults.update_secret(made[0], models.UpdateSecretDetails(secret_content=content("newer"))))
    settle(made[0], "ACTIVE")
    assert value(made[0]) == "new"
    versions = oci.pagination.list_call_get_all_results(vaults.list_secret_versions, made[0], limit=1).data
    assert [v.version_number for v in versions] == [2, 1] and "CURRENT" in versions[0].stages
    assert vaults.get_secret_version(made[0], 1).data.version_number == 1
    named = values.get_secret_bundle_by_name(secret_name="sdk-0", vault_id=vault).data
    assert named.version_number == 2
    stale = vaults.get_secret(made[0]).headers["etag"]
    settle_update = models.UpdateSecretDetails(description="touched")
    vaults.update_secret(made[0], settle_update)
    settle(made[0], "ACTIVE")
    refused(412, "NoEtagMatch", lambda: vaults.update_secret(made[0], settle_update, if_match=stale))

    # Deletion: a day at least; the name stays taken; it can be called off.
    now = datetime.datetime.now(datetime.timezone.utc)
    too_soon = models.ScheduleSecretDeletionDetails(time_of_deletion=now + datetime.timedelta(hours=23, minutes=55))
    assert "invalid range" in refused(400, "InvalidParameter", lambda: vaults.schedule_secret_deletion(made[1], too_soon))
    week = models.ScheduleSecretDeletionDetails(time_of_deletion=now + datetime.timedelta(days=7))
    vaults.schedule_secret_deletion(made[1], week)
    pending = settle(made[1], "PENDING_DELETION")
    assert abs((pending.time_of_deletion - week.time_of_deletion).total_seconds()) < 2
    refused(404, "NotAuthorizedOrNotFound", lambda: values.get_secret_bundle_by_name(secret_name="sdk-1", vault_id=vault))
    refused(404, "NotAuthorizedOrNotFound", lambda: values.get_secret_bundle(made[1]))
    refused(400, "InvalidParameter", lambda: create("sdk-1", "again"))
    vaults.cancel_secret_deletion(made[1])
    settle(made[1], "ACTIVE")
    assert value(made[1]) == "value 1"

    # The same retry token makes the same secret.
    details = models.CreateSecretDetails(compartment_id=compartment, vault_id=vault, key_id=key, secret_name="sdk-token", secret_content=content("t"))
    token = "A" * 30
    first = vaults.create_secret(details, opc_retry_token=token).data.id
    assert vaults.create_secret(details, opc_retry_token=token).data.id == first

    # A wrong key is a wrong signature.
    wrong = dict(config, fingerprint="00:" + config["fingerprint"][3:])
    other = VaultsClient(wrong, service_endpoint=url, **quiet)
    refused(401, "NotAuthenticated", lambda: other.list_secrets(compartment))
    return sorted(s.secret_name for s in listed())


def read():
    return {s.secret_name: value(s.id) for s in listed() if s.lifecycle_state == "ACTIVE"}


def write():
    return {name: create(name, text).id for name, text in json.loads(sys.argv[5]).items()}


print(json.dumps({"all": everything, "read": read, "write": write}[what]()))
