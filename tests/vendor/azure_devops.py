"""Drives a variable group with Microsoft's azure-devops client.

Usage: azure_devops.py STEP BASE TOKEN PROJECT CACHE
"""

import os
import sys

step, base, token, project, cache = sys.argv[1:6]
# The client keeps locations on disk, by address: a directory of our own keeps runs apart.
os.environ["AZURE_DEVOPS_CACHE_DIR"] = cache

from azure.devops.connection import Connection
from azure.devops.exceptions import AzureDevOpsServiceError
from azure.devops.v7_1.task_agent.models import (
    ProjectReference,
    VariableGroupParameters,
    VariableGroupProjectReference,
    VariableValue,
)
from msrest.authentication import BasicAuthentication

connection = Connection(base_url=base, creds=BasicAuthentication("", token))
core = connection.clients_v7_1.get_core_client()
agent = connection.clients_v7_1.get_task_agent_client()
# Before 5.2 the project stands in the path of a write; this client knows only the newer form.
modern = any(l.id == "ef5b7057-ffc3-4c77-bbad-c10b4a4abcc7" for l in agent._get_resource_locations(base, False))


def parameters(name, variables):
    reference = VariableGroupProjectReference(name=name, project_reference=ProjectReference(id=project))
    return VariableGroupParameters(name=name, type="Vsts", variables=variables, variable_group_project_references=[reference])


def find(name):
    groups = agent.get_variable_groups(project, group_name=name, query_order="idAscending")
    return next((g for g in groups if g.name == name), None)


def legacy(method, path, body=None):
    import requests

    answer = requests.request(
        method,
        f"{base}/{project}/_apis/distributedtask/variablegroups{path}",
        json=body,
        auth=("", token),
        headers={"Accept": "application/json;api-version=5.1-preview.1"},
    )
    assert answer.ok, (answer.status_code, answer.text)


def write(name, variables, group_id=None):
    if modern:
        made = parameters(name, variables)
        return agent.update_variable_group(made, group_id) if group_id else agent.add_variable_group(made)
    body = {"name": name, "type": "Vsts", "variables": {}}
    for key, v in variables.items():
        entry = {"isSecret": True} if v.is_secret else {}
        if v.value is not None:
            entry["value"] = v.value
        body["variables"][key] = entry
    legacy("PUT" if group_id else "POST", f"/{group_id}" if group_id else "", body)


if step == "over-ours":
    assert [p.id for p in core.get_projects()] == [project]
    group = find("Production Environment")
    again = agent.get_variable_group(project, group.id)
    assert again.modified_on == group.modified_on and group.type == "Vsts"
    variables = again.variables
    assert set(variables) == {"DB_PASSWORD", "API_KEY"}, variables
    assert all(v.is_secret and v.value is None for v in variables.values()), variables
    variables["THEIRS"] = VariableValue(value="from the sdk")
    variables["THEIR_SECRET"] = VariableValue(value="hidden", is_secret=True)
    write(group.name, variables, group.id)
elif step == "own-group":
    write("Made by the SDK", {"FIRST": VariableValue(value="1", is_secret=True)})
    assert find("Made by the SDK").variables["FIRST"].value is None
    assert len(agent.get_variable_groups(project)) == 2
elif step == "errors":
    assert agent.get_variable_group(project, 4242) is None
    if modern:
        expected = {
            "VariableGroupExistsException": lambda: agent.add_variable_group(parameters("Made by the SDK", {"A": VariableValue(value="1")})),
            "VariableGroupNotFoundException": lambda: agent.update_variable_group(parameters("x", {"A": VariableValue(value="1")}), 4242),
            "ArgumentException": lambda: agent.add_variable_group(parameters("Empty", {})),
        }
        for key, call in expected.items():
            try:
                call()
            except AzureDevOpsServiceError as error:
                assert error.type_key == key, (key, error.type_key)
            else:
                raise AssertionError(f"{key} expected")
elif step == "delete":
    group = find("Made by the SDK")
    assert set(group.variables) == {"FIRST", "OURS"}, group.variables
    if modern:
        agent.delete_variable_group(group.id, [project])
    else:
        legacy("DELETE", f"/{group.id}")
    assert find("Made by the SDK") is None
else:
    raise SystemExit(f"no step {step}")
