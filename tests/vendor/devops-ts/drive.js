// Drives a variable group with Microsoft's JavaScript client (`azure-devops-node-api`), which
// differs from the Python one: it carries a secret as `"value": null`, sends `queryOrder` as a
// number, asks the locations area by area and the newest preview, and signs in as user `PAT`.
//
// Arguments: STEP BASE TOKEN PROJECT

const assert = require("node:assert");
const azure = require("azure-devops-node-api");

const [step, base, token, project] = process.argv.slice(2);
const connection = new azure.WebApi(base, azure.getPersonalAccessTokenHandler(token), { allowRetries: false });
const ASCENDING = 0;

function parameters(name, variables) {
  return { name, type: "Vsts", variables, variableGroupProjectReferences: [{ name, projectReference: { id: project } }] };
}

async function find(agent, name) {
  const groups = await agent.getVariableGroups(project, name, undefined, 5, undefined, ASCENDING);
  return groups.find((group) => group.name === name);
}

async function refused(call, typeKey, status) {
  await assert.rejects(call, (error) => {
    assert.strictEqual(error.result?.typeKey, typeKey, error.message);
    assert.strictEqual(error.statusCode, status);
    return true;
  });
}

const steps = {
  // Reads what kms-sync wrote, and carries it through an update of its own.
  async "over-ours"(agent) {
    const projects = await (await connection.getCoreApi()).getProjects();
    assert.deepStrictEqual(projects.map((p) => p.id), [project]);
    const group = await find(agent, "Production Environment");
    const again = await agent.getVariableGroup(project, group.id);
    assert.deepStrictEqual(again.variables, group.variables);
    assert.deepStrictEqual(Object.keys(group.variables).sort(), ["API_KEY", "DB_PASSWORD"]);
    for (const variable of Object.values(group.variables)) {
      assert.deepStrictEqual([variable.isSecret, variable.value], [true, null]);
    }
    const variables = { ...group.variables, THEIRS: { value: "from the sdk" }, THEIR_SECRET: { value: "hidden", isSecret: true } };
    const after = await agent.updateVariableGroup({ ...parameters(group.name, variables), description: group.description }, group.id);
    assert.strictEqual(after.variables.THEIR_SECRET.value, null);
    assert.strictEqual(after.description, group.description);
  },
  async "own-group"(agent) {
    const made = await agent.addVariableGroup(parameters("Made by the SDK", { FIRST: { value: "1", isSecret: true } }));
    assert.strictEqual(made.variables.FIRST.value, null);
    assert.strictEqual((await agent.getVariableGroups(project)).length, 2);
    const byIds = await agent.getVariableGroupsById(project, [made.id]);
    assert.deepStrictEqual(byIds.map((group) => group.name), ["Made by the SDK"]);
  },
  async errors(agent) {
    assert.strictEqual(await agent.getVariableGroup(project, 4242), null);
    const one = { A: { value: "1" } };
    await refused(() => agent.addVariableGroup(parameters("Made by the SDK", one)), "VariableGroupExistsException", 409);
    await refused(() => agent.addVariableGroup(parameters("Empty", {})), "ArgumentException", 400);
  },
  async delete(agent) {
    const group = await find(agent, "Made by the SDK");
    assert.deepStrictEqual(Object.keys(group.variables).sort(), ["FIRST", "OURS"]);
    await agent.deleteVariableGroup(group.id, [project]);
    assert.strictEqual(await find(agent, "Made by the SDK"), undefined);
  },
};

connection
  .getTaskAgentApi()
  .then((agent) => steps[step](agent))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
