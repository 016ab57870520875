"""Judges the manifests of deploy/kubernetes: Kubernetes' own schemas, and what every workload of this project must have."""
import pathlib
import sys
import tomllib

import kubernetes_validate
import yaml

VERSION = "1.31"


def documents(folder):
    for path in sorted(pathlib.Path(folder).rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield path, document


def required(condition, path, what):
    if not condition:
        sys.exit(f"{path}: {what}")


def workload(path, document):
    """A pod that can do as little as possible, says what it needs and when it is ready, and may talk to few."""
    name = document["metadata"]["name"]
    pod = document["spec"]["template"]["spec"]
    required(pod["securityContext"]["runAsNonRoot"] is True, path, f"{name} may run as root")
    required(pod["automountServiceAccountToken"] is False, path, f"{name} gets a token of the cluster")
    required(not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), path, f"{name} shares with its host")
    required(not any("hostPath" in volume for volume in pod["volumes"]) if "volumes" in pod else True, path,
             f"{name} mounts a folder of its host")
    for container in pod["containers"]:
        context = container["securityContext"]
        required(context["readOnlyRootFilesystem"] is True, path, f"{name} can write to its own image")
        required(context["allowPrivilegeEscalation"] is False, path, f"{name} can gain privileges")
        required(context["capabilities"]["drop"] == ["ALL"], path, f"{name} keeps capabilities")
        required("readinessProbe" in container, path, f"{name} has no readiness probe")
        required({"cpu", "memory"} <= container["resources"]["requests"].keys(), path, f"{name} says not what it needs")
        required("memory" in container["resources"]["limits"], path, f"{name} may take all memory")


def role(path, document):
    """An account of the cluster that may look, and at nothing but who the guests are."""
    for rule in document["rules"]:
        asks = set(rule["verbs"]) <= {"get", "list", "watch"} and rule["resources"] == ["endpointslices"]
        required(asks, path, f"{document['metadata']['name']} may do more than look for guests")


def configuration(path, document):
    """TOML in it is TOML."""
    for name, text in document.get("data", {}).items():
        if name.endswith(".toml"):
            try:
                tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                sys.exit(f"{path}: {name}: {error}")


def selects(policy, labels):
    selector = policy["spec"]["podSelector"]
    wanted = selector.get("matchLabels", {})
    one_of = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in one_of)


def main(folder):
    everything = list(documents(folder))
    policies = [document for _, document in everything if document["kind"] == "NetworkPolicy"]
    budgets = [document for _, document in everything if document["kind"] == "PodDisruptionBudget"]
    seen = 0
    for path, document in everything:
        kubernetes_validate.validate(document, VERSION, strict=True)
        required(document["kind"] not in ("ClusterRole", "ClusterRoleBinding"), path, "a role in the whole cluster")
        if document["kind"] == "Role":
            role(path, document)
        if document["kind"] == "ConfigMap":
            configuration(path, document)
        if document["kind"] not in ("Deployment", "DaemonSet", "StatefulSet"):
            continue
        seen += 1
        workload(path, document)
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        labels = document["spec"]["template"]["metadata"]["labels"]
        mine = [p for p in policies if p["metadata"]["namespace"] == namespace and selects(p, labels)]
        for direction in ("Ingress", "Egress"):
            closed = any(direction in policy["spec"]["policyTypes"] for policy in mine)
            required(closed, path, f"no NetworkPolicy bounds {direction} of {name}")
        if document["spec"].get("replicas", 2) > 1:
            budget = any(b["spec"]["selector"]["matchLabels"].items() <= labels.items() for b in budgets)
            required(budget, path, f"{name} has no PodDisruptionBudget")
    print(f"{len(everything)} resources, {seen} workloads: valid for Kubernetes {VERSION}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (KeyError, kubernetes_validate.ValidationError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
