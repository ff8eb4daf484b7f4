"""Microsoft's own client against a Key Vault: URL CERTIFICATES TOKEN STEP. Prints one JSON document.

The step `sign-in` takes no token: it gets its own by azure-identity, from AUTHORITY TENANT CLIENT
SECRET, joined by spaces in place of TOKEN.
"""

import json
import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

URL, CERTIFICATE, TOKEN, STEP = sys.argv[1:5]


class Static:
    """A credential that always gives the same token and remembers what was asked."""

    def __init__(self, token):
        self.token = token
        self.asked = []

    def get_token(self, *scopes, **kwargs):
        self.asked.append([list(scopes), kwargs.get("tenant_id")])
        return AccessToken(self.token, int(time.time()) + 3000)


def client(token=TOKEN, **kwargs):
    credential = Static(token)
    made = SecretClient(
        URL, credential, connection_verify=CERTIFICATE, verify_challenge_resource=False, **kwargs
    )
    return made, credential


def caught(call):
    try:
        call()
    except HttpResponseError as error:
        inner = None
        if error.error is not None and error.error.innererror:
            inner = error.error.innererror.get("code")
        kinds = (ResourceNotFoundError, ResourceExistsError, ClientAuthenticationError)
        name = next((k.__name__ for k in kinds if isinstance(error, k)), "HttpResponseError")
        return [name, error.status_code, inner]
    return None


def everything(vault):
    return {p.name: vault.get_secret(p.name).value for p in vault.list_properties_of_secrets() if p.enabled}


def tour():
    """Every operation of the client, on an empty vault."""
    vault, credential = client()
    out = {}
    first = vault.set_secret("A-b", "v1 ü\r\n", tags={"team": "red"}, content_type="text/plain")
    second = vault.set_secret("a-B", "v2")
    out["asked"] = credential.asked
    out["version_length"] = len(first.properties.version)
    out["same_secret"] = first.name.lower() == second.name.lower() and first.properties.version != second.properties.version
    out["current"] = vault.get_secret("A-B").value
    out["old"] = vault.get_secret("a-b", first.properties.version).value
    out["tags_after_put"] = vault.get_secret("a-b").properties.tags
    out["versions"] = len(list(vault.list_properties_of_secret_versions("a-b")))
    for i in range(60):
        vault.set_secret(f"K{i:02}", str(i))
    out["listed"] = len(list(vault.list_properties_of_secrets()))
    out["listed_by_7"] = len(list(vault.list_properties_of_secrets(max_page_size=7)))
    off = vault.update_secret_properties("K00", enabled=False)
    out["disabled"] = [off.enabled, caught(lambda: vault.get_secret("K00"))]
    vault.update_secret_properties("K00", enabled=True, tags={"x": "y"}, content_type="t")
    again = vault.get_secret("K00")
    out["updated"] = [again.value, again.properties.tags, again.properties.content_type]
    poller = vault.begin_delete_secret("K01")
    out["while_deleting"] = caught(lambda: vault.set_secret("K01", "x"))
    poller.wait()
    out["deleted"] = vault.get_deleted_secret("K01").scheduled_purge_date is not None
    out["deleted_list"] = [p.name for p in vault.list_deleted_secrets()]
    out["get_deleted_name"] = caught(lambda: vault.get_secret("K01"))
    out["set_deleted_name"] = caught(lambda: vault.set_secret("K01", "x"))
    recovery = vault.begin_recover_deleted_secret("K01")
    out["while_recovering"] = caught(lambda: vault.set_secret("K01", "x"))
    recovery.wait()
    out["recovered"] = vault.get_secret("K01").value
    out["missing"] = caught(lambda: vault.get_secret("NOPE"))
    out["bad_name"] = caught(lambda: vault.get_secret("a.b"))
    out["too_large"] = caught(lambda: vault.set_secret("BIG", "x" * 25601))
    out["page_too_large"] = caught(lambda: list(vault.list_properties_of_secrets(max_page_size=26)))
    old, _ = client(api_version="7.4")
    out["by_7_4"] = old.get_secret("K02").value
    return out


def stranger():
    """A token that is none."""
    vault, _ = client("not-a-token")
    return {"set": caught(lambda: vault.set_secret("A", "x")), "delete": caught(lambda: vault.begin_delete_secret("K1"))}


def read():
    vault, _ = client()
    return everything(vault)


def edit():
    """Somebody else's day: an edit, a tag, a deletion, a new secret, a disabled one."""
    vault, _ = client()
    vault.set_secret("APP-ONE", "edited outside")
    vault.update_secret_properties("APP-TWO", tags={"team": "red"})
    vault.begin_delete_secret("APP-THREE").wait()
    vault.set_secret("NATIVE-hyphen", "n")
    vault.update_secret_properties("APP-FOUR", enabled=False)
    return {}


def sign_in():
    """The whole of Microsoft's way: challenge, discovery, token request, call."""
    authority, tenant, app, secret = TOKEN.split()

    def signed_in(proof):
        credential = ClientSecretCredential(
            tenant, app, proof, authority=authority, disable_instance_discovery=True, connection_verify=CERTIFICATE
        )
        return SecretClient(URL, credential, connection_verify=CERTIFICATE, verify_challenge_resource=False)

    vault = signed_in(secret)
    vault.set_secret("SIGNED-IN", "v")
    out = {"value": vault.get_secret("signed-in").value, "names": [p.name for p in vault.list_properties_of_secrets()]}
    try:
        signed_in("wrong").get_secret("SIGNED-IN")
    except ClientAuthenticationError as error:
        out["wrong"] = "AADSTS7000215" in str(error)
    return out


print(json.dumps({"sign-in": sign_in, "tour": tour, "stranger": stranger, "read": read, "edit": edit}[STEP]()))
