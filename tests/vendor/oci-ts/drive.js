// Drives the sandbox with Oracle's TypeScript SDK, which signs `x-date` and mixed-case header
// names where the Python SDK signs `date` and lower-case ones.
//
// Arguments: URL, a JSON file {"config","compartment","vault","key"}, and what to do: `all` walks
// through the whole life of secrets, `read` prints names and values, `write` puts some.

const assert = require("node:assert");
const fs = require("node:fs");
const { Region, SimpleAuthenticationDetailsProvider } = require("oci-common");
const { SecretsClient } = require("oci-secrets");
const { VaultsClient, models } = require("oci-vault");

const [url, factsFile, what, more] = process.argv.slice(2);
const facts = JSON.parse(fs.readFileSync(factsFile, "utf8"));
const { config, compartment, vault, key } = facts;

function provider(fingerprint) {
  const region = Region.fromRegionId(config.region);
  return new SimpleAuthenticationDetailsProvider(config.tenancy, config.user, fingerprint, config.key_content, null, region);
}

function client(Kind, fingerprint = config.fingerprint) {
  const made = new Kind({ authenticationDetailsProvider: provider(fingerprint) }, { circuitBreaker: undefined });
  made.endpoint = url;
  return made;
}

const vaults = client(VaultsClient);
const values = client(SecretsClient);

function content(text) {
  return { contentType: "BASE64", content: Buffer.from(text, "utf8").toString("base64") };
}

async function settle(secretId, state) {
  for (let round = 0; round < 400; round++) {
    const { secret } = await vaults.getSecret({ secretId });
    if (secret.lifecycleState === state) {
      return secret;
    }
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`${secretId} does not become ${state}`);
}

async function create(secretName, text, opcRetryToken) {
  const createSecretDetails = { compartmentId: compartment, vaultId: vault, keyId: key, secretName, secretContent: content(text) };
  const { secret } = await vaults.createSecret({ createSecretDetails, opcRetryToken });
  await settle(secret.id, models.Secret.LifecycleState.Active);
  return secret.id;
}

async function listed() {
  const all = [];
  let page;
  do {
    const answer = await vaults.listSecrets({ compartmentId: compartment, vaultId: vault, limit: 2, page });
    all.push(...answer.items);
    page = answer.opcNextPage;
  } while (page);
  return all;
}

async function value(secretId) {
  const { secretBundle } = await values.getSecretBundle({ secretId });
  return Buffer.from(secretBundle.secretBundleContent.content, "base64").toString("utf8");
}

async function refused(statusCode, serviceCode, call) {
  try {
    await call();
  } catch (error) {
    assert.deepStrictEqual([error.statusCode, error.serviceCode], [statusCode, serviceCode], String(error));
    return error.message;
  }
  throw new Error(`${statusCode} ${serviceCode} expected`);
}

async function all() {
  const made = [];
  for (let n = 0; n < 5; n++) {
    made.push(await create(`ts-${n}`, `välue ${n}\n`));
  }
  assert.deepStrictEqual((await listed()).map((s) => s.id).sort(), [...made].sort());
  assert.strictEqual(await value(made[3]), "välue 3\n");
  assert.match(await refused(400, "InvalidParameter", () => create("ts-0", "again")), /already exists/);

  // A change settles: meanwhile the next one is refused, and the old value is read.
  const update = (text, ifMatch) =>
    vaults.updateSecret({ secretId: made[0], updateSecretDetails: { secretContent: content(text) }, ifMatch });
  const { etag: stale } = await vaults.getSecret({ secretId: made[0] });
  await update("new", stale);
  await refused(409, "IncorrectState", () => update("newer"));
  assert.strictEqual((await settle(made[0], "ACTIVE")).currentVersionNumber, 2);
  assert.strictEqual(await value(made[0]), "new");
  await refused(412, "NoEtagMatch", () => update("newer", stale));
  const { items: versions } = await vaults.listSecretVersions({ secretId: made[0] });
  assert.deepStrictEqual(versions.map((v) => v.versionNumber), [2, 1]);
  const named = await values.getSecretBundleByName({ secretName: "ts-0", vaultId: vault });
  assert.strictEqual(named.secretBundle.versionNumber, 2);

  // Deletion can be called off, and the value is back.
  const timeOfDeletion = new Date(Date.now() + 7 * 86400 * 1000);
  const schedule = (at) => vaults.scheduleSecretDeletion({ secretId: made[1], scheduleSecretDeletionDetails: { timeOfDeletion: at } });
  assert.match(await refused(400, "InvalidParameter", () => schedule(new Date(Date.now() + 86100 * 1000))), /invalid range/);
  await schedule(timeOfDeletion);
  const pending = await settle(made[1], "PENDING_DELETION");
  assert.ok(Math.abs(new Date(pending.timeOfDeletion) - timeOfDeletion) < 1000);
  await refused(404, "NotAuthorizedOrNotFound", () => value(made[1]));
  await vaults.cancelSecretDeletion({ secretId: made[1] });
  await settle(made[1], "ACTIVE");
  assert.strictEqual(await value(made[1]), "välue 1\n");

  // The same retry token makes the same secret.
  const token = "T".repeat(30);
  assert.strictEqual(await create("ts-token", "t", token), await create("ts-token", "t", token));

  // A fingerprint that is nobody's.
  const other = client(VaultsClient, `00:${config.fingerprint.slice(3)}`);
  await refused(401, "NotAuthenticated", () => other.listSecrets({ compartmentId: compartment }));
  return (await listed()).map((s) => s.secretName).sort();
}

async function read() {
  const out = {};
  for (const secret of await listed()) {
    if (secret.lifecycleState === "ACTIVE") {
      out[secret.secretName] = await value(secret.id);
    }
  }
  return out;
}

async function write() {
  for (const [name, text] of Object.entries(JSON.parse(more))) {
    await create(name, text);
  }
  return {};
}

({ all, read, write })
  [what]()
  .then((answer) => console.log(JSON.stringify(answer)))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
