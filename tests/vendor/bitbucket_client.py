"""Drives a Bitbucket server with atlassian-python-api: STEP and a JSON object; prints JSON."""

import json
import sys

from atlassian.bitbucket import Cloud

step, ask = sys.argv[1], json.loads(sys.argv[2])
cloud = Cloud(url=ask["url"] + "/", username=ask["email"], password=ask["token"])
repository = cloud.repositories.get(ask["workspace"], ask["repository"])
more = ask["more"]


def environment(name):
    return next(e for e in repository.deployment_environments.each() if e.name == name)


def row(variable):
    return {"key": variable.key, "uuid": variable.uuid, "secured": variable.secured}


def listing():
    return {
        "repository": [row(v) for v in repository.repository_variables.each()],
        "environments": {
            e.name: [row(v) for v in e.deployment_environment_variables.each()] for e in repository.deployment_environments.each()
        },
    }


out = {}
if step == "seed":
    for i in range(more["count"]):
        made = repository.repository_variables.create(f"CLIENT_{i:02}", f"client value {i}", i % 2 == 0)
        assert made.key == f"CLIENT_{i:02}" and made.uuid.startswith("{"), made.data
    variables = environment("Production").deployment_environment_variables
    for i in range(12):
        made = variables.create(f"DEPLOY_{i:02}", f"deploy value {i}", True)
        assert made.uuid.startswith("{")
    again = repository.repository_variables.get(next(iter(repository.repository_variables.each())).uuid)
    assert again.key.startswith("CLIENT_")
    try:
        repository.repository_variables.create("CLIENT_00", "x", True)
        raise SystemExit("a duplicate was accepted")
    except Exception as error:
        assert "already exists" in str(error), error
    out = listing()
elif step == "list":
    out = listing()
elif step == "edit":
    repository.repository_variables.update_by_key(more["key"], more["value"])
elif step == "delete":
    repository.repository_variables.get_by_key(more["key"]).delete()
elif step == "edit-deployment":
    variables = environment("Production").deployment_environment_variables
    next(v for v in variables.each() if v.key == more["key"]).update(value=more["value"])
    made = variables.create("SHORT_LIVED", "x", True)
    made.delete()
else:
    raise SystemExit(f"unknown step {step}")
print(json.dumps(out))
