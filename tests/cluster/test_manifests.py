"""Every file under cluster/ against the schema of whoever reads it; a planted typo is caught."""

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster import render
from rayclean.config import load_config
from rayclean.sweeps.plan import make_plan
from rayclean.sweeps.sweep_file import load_sweep
from rayclean.verb_fingerprints import check_plugins
from tests.cluster import kubernetes
from tests.cluster.strict import strict

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
RAY_KINDS = ("RayCluster", "RayJob", "RayService")
Document = dict[str, Any]


@cache
def _read(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def documents(path: Path) -> list[Document]:
    """What a file holds, for the test to change."""
    return copy.deepcopy(_read(path))


def of_kind(kind: str) -> list[Document]:
    return [d for path in KUBERAY for d in documents(path) if d["kind"] == kind]


@cache
def _validator(file: Path) -> Any:
    """A large schema, ready to check documents: `jsonschema.validate` would check the schema itself at every call."""
    return jsonschema.Draft202012Validator(strict(json.loads(file.read_text())))


@pytest.fixture
def schemas() -> dict[str, Any]:
    """Validators by KubeRay's own schemas, by kind."""
    folder = os.environ.get("RAYCLEAN_TEST_DATA")
    if not folder or not (Path(folder) / "schemas" / "kuberay").is_dir():
        pytest.skip("RAYCLEAN_TEST_DATA names no folder with schemas/kuberay")
    files = Path(folder) / "schemas" / "kuberay"
    return {kind: _validator(files / f"{kind}.v1.json") for kind in RAY_KINDS}


def test_rendered_files_are_what_the_parameters_say() -> None:
    assert subprocess.run([sys.executable, str(CLUSTER / "render.py"), "--check"]).returncode == 0


def test_a_missing_parameter_is_named() -> None:
    parameters = tomllib.loads((CLUSTER / "parameters.toml").read_text())
    del parameters["image_gpu"]
    with pytest.raises(Exception, match="image_gpu"):
        render.render(parameters)


def test_every_parameter_is_used() -> None:
    """A changed value changes a file."""

    def leaves(values: Document, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, (*above, key))
            else:
                yield (*above, key)

    parameters = tomllib.loads((CLUSTER / "parameters.toml").read_text())
    before = render.render(parameters)
    for path in leaves(parameters):
        changed = copy.deepcopy(parameters)
        section = changed
        for part in path[:-1]:
            section = section[part]
        value = section[path[-1]]
        if isinstance(value, list):
            section[path[-1]] = [*value, value[0]] if value else ["true"]
        else:
            section[path[-1]] = value + 1 if isinstance(value, int) else f"{value}9"
        assert render.render(changed) != before, f"{'.'.join(path)} is read by no template"


def test_there_is_one_of_every_kind() -> None:
    kinds = [document["kind"] for path in KUBERAY for document in documents(path)]
    assert sorted(kinds) == [
        "ConfigMap",
        "ConfigMap",
        "NetworkPolicy",
        "RayCluster",
        "RayJob",
        "RayJob",
        "RayService",
    ]


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kuberay_manifests_satisfy_the_schema(path: Path, schemas: dict[str, Any]) -> None:
    for document in documents(path):
        if document["kind"] in schemas:
            schemas[document["kind"]].validate(document)


@pytest.mark.parametrize("kind", sorted(kubernetes.SCHEMAS))
def test_kubernetes_own_kinds_satisfy_theirs(kind: str) -> None:
    found = of_kind(kind)
    assert found
    for document in found:
        jsonschema.validate(document, kubernetes.SCHEMAS[kind])


@pytest.mark.parametrize(
    ("kind", "where", "right", "wrong"),
    [
        ("ConfigMap", [], "data", "date"),
        ("NetworkPolicy", ["spec"], "egress", "egres"),
        ("NetworkPolicy", ["spec", "ingress", 0, "from", 0], "podSelector", "podSelect"),
        ("NetworkPolicy", ["spec", "egress", -1, "to", 0, "ipBlock"], "cidr", "cdir"),
        ("NetworkPolicy", ["spec", "egress", -1, "ports", 0], "port", "ports"),
    ],
)
def test_a_typo_in_kubernetes_own_kinds_is_caught(
    kind: str, where: list[Any], right: str, wrong: str
) -> None:
    document = copy.deepcopy(of_kind(kind)[0])
    part = document
    for step in where:
        part = part[step]
    part[wrong] = part.pop(right)
    with pytest.raises(jsonschema.ValidationError, match=wrong):
        jsonschema.validate(document, kubernetes.SCHEMAS[kind])


@pytest.mark.parametrize(
    ("kind", "where", "right", "wrong"),
    [
        ("RayCluster", ["spec", "workerGroupSpecs", 0], "minReplicas", "minReplica"),
        ("RayCluster", ["spec", "authOptions"], "mode", "node"),
        (
            "RayCluster",
            ["spec", "headGroupSpec", "template", "spec", "containers", 0],
            "resources",
            "resource",
        ),
        ("RayJob", ["spec"], "backoffLimit", "backOffLimit"),
        ("RayJob", ["spec", "rayClusterSpec"], "enableInTreeAutoscaling", "enableInTreeAutoscaler"),
        ("RayService", ["spec"], "serveConfigV2", "serveConfig"),
    ],
)
def test_a_planted_typo_is_caught(
    kind: str, where: list[Any], right: str, wrong: str, schemas: dict[str, Any]
) -> None:
    document = copy.deepcopy(of_kind(kind)[0])
    part = document
    for step in where:
        part = part[step]
    part[wrong] = part.pop(right)
    with pytest.raises(jsonschema.ValidationError, match=wrong):
        schemas[kind].validate(document)


def cluster_specs() -> Iterator[Document]:
    for kind, key in (("RayCluster", None), ("RayJob", "rayClusterSpec"), ("RayService", "rayClusterConfig")):
        for document in of_kind(kind):
            yield document["spec"][key] if key else document["spec"]


def test_clusters_ask_for_tokens_and_survive_their_head() -> None:
    for spec in cluster_specs():
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
        assert spec["enableInTreeAutoscaling"] is True
        assert spec["autoscalerOptions"]["version"] == "v2"
        assert [group["groupName"] for group in spec["workerGroupSpecs"]] == ["cpu", "gpu"]


def test_the_operator_is_installed_with_what_the_clusters_need() -> None:
    """The gate is off by default, and without it the operator refuses every cluster that keeps its state in RocksDB."""
    backends = {spec.get("gcsFaultToleranceOptions", {}).get("backend") for spec in cluster_specs()}
    readme = (CLUSTER / "README.md").read_text().replace("\\\n", " ")
    (install,) = [line for line in readme.splitlines() if line.startswith("helm install kuberay-operator")]
    values = dict(re.findall(r"--set '([^'=]+)=([^']*)'", install))
    gates = {
        values[key]: values[key.replace(".name", ".enabled")] for key in values if key.endswith("].name")
    }
    assert ("GCSFaultToleranceEmbeddedStorage", "true") in gates.items() or "rocksdb" not in backends


def test_pods_are_confined_sized_and_watched() -> None:
    for spec in cluster_specs():
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert "livenessProbe" in container
            assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/dev/shm", "/cache"}
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            # `app.kubernetes.io/name` is KubeRay's: the head service of a RayService selects pods by its own value of it.
            assert group["template"]["metadata"]["labels"] == {"rayclean/cluster": "rayclean"}
        gpu = spec["workerGroupSpecs"][1]["template"]["spec"]
        assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert gpu["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}


def test_the_object_store_fits_into_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of Ray itself: where /dev/shm is smaller than the store, Ray puts the store on the disk, or does not start."""
    from ray._private import services, utils

    def placed(store: int, shm: int) -> str:
        monkeypatch.setattr(utils, "get_shared_memory_bytes", lambda: shm)
        return str(services.determine_plasma_store_config(store, "/tmp", None, None)[0])

    gib = 1024**3
    stores = []
    monkeypatch.setattr("ray._common.utils.get_system_memory", lambda: 1024 * gib)
    for spec in cluster_specs():
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            (shm,) = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "shm"]
            memory = pod["containers"][0]["resources"]["limits"]["memory"]
            store = int(group["rayStartParams"]["object-store-memory"])
            assert placed(store, int(shm.removesuffix("Gi")) * gib) == "/dev/shm"
            assert placed(store, store - 1) != "/dev/shm" if store <= 10**10 else True
            assert (
                int(shm.removesuffix("Gi")) <= int(memory.removesuffix("Gi")) / 2
            )  # it counts as the pod's memory
            stores.append(store)
    for cloud in ("aws", "gcp"):
        (config,) = documents(CLUSTER / f"{cloud}.yaml")
        types = config["available_node_types"]
        options = [
            config["docker"]["head_run_options"],
            *(types[t]["docker"]["worker_run_options"] for t in ("cpu", "gpu")),
        ]
        for given, store in zip(options, stores[:3], strict=True):
            (shm,) = [option for option in given if option.startswith("--shm-size=")]
            assert placed(store, int(re.sub(r"\D", "", shm)) * gib) == "/dev/shm"
            assert f"--env=OBJECT_STORE={store}" in given
        for command in [config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]]:
            assert "--object-store-memory=$OBJECT_STORE" in command


def test_every_node_knows_how_far_the_cluster_may_grow() -> None:
    from rayclean.runtime import nodes

    sizes = tomllib.loads((CLUSTER / "parameters.toml").read_text())
    cpu, gpu = sizes["cpu_workers"], sizes["gpu_workers"]
    told = [
        entry["value"]
        for spec in cluster_specs()
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        for entry in group["template"]["spec"]["containers"][0]["env"]
        if entry["name"] == nodes.DECLARED
    ]
    assert len(told) == 3 * len(list(cluster_specs()))
    for cloud in ("aws", "gcp"):
        (config,) = documents(CLUSTER / f"{cloud}.yaml")
        prefix = f"--env={nodes.DECLARED}="
        told += [o.removeprefix(prefix) for o in config["docker"]["run_options"] if o.startswith(prefix)]
    assert len(told) == 3 * len(list(cluster_specs())) + 2
    with pytest.MonkeyPatch.context() as patch:
        for value in told:
            patch.setenv(nodes.DECLARED, value)
            assert nodes.declared() == [
                (cpu["max"], {"CPU": float(cpu["cpu"])}),
                (gpu["max"], {"CPU": float(gpu["cpu"]), "GPU": float(gpu["gpus"])}),
            ]


def rendered(**changed: Any) -> dict[str, str]:
    parameters = tomllib.loads((CLUSTER / "parameters.toml").read_text())
    for key, value in changed.items():
        if isinstance(value, dict):
            parameters[key] |= value
        else:
            parameters[key] = value
    return render.render(parameters)


def test_keys_reach_every_node_and_only_by_name() -> None:
    files = rendered(env_secret="my-keys", env_file="/etc/keys.env", initialization=["fetch 'my keys'"])
    for path in ("kuberay/raycluster.yaml", "kuberay/rayservice.yaml"):
        (document,) = [d for d in yaml.safe_load_all(files[path]) if d]
        spec = document["spec"].get("rayClusterConfig", document["spec"])
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            container = group["template"]["spec"]["containers"][0]
            assert container["envFrom"] == [{"secretRef": {"name": "my-keys"}}]
    for cloud in ("aws", "gcp"):
        config = yaml.safe_load(files[f"{cloud}.yaml"])
        assert "--env-file=/etc/keys.env" in config["docker"]["run_options"]
        assert config["initialization_commands"][-1] == "fetch 'my keys'"
    assert not any("envFrom" in text or "--env-file" in text for text in rendered().values())


def test_images_of_a_private_registry_can_be_pulled() -> None:
    """By all pods, and by the submitter of a job, which KubeRay would start from the head's image without the secret."""
    secrets = [{"name": "registry"}]
    for path, text in rendered(image_pull_secret="registry").items():
        for document in yaml.safe_load_all(text) if path.startswith("kuberay") else []:
            if document["kind"] not in RAY_KINDS:
                continue
            spec = document["spec"]
            if document["kind"] == "RayJob":
                submitter = spec["submitterPodTemplate"]["spec"]
                assert submitter["imagePullSecrets"] == secrets
                head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
                assert submitter["containers"][0]["image"] == head["containers"][0]["image"]
            spec = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
            for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
                assert group["template"]["spec"]["imagePullSecrets"] == secrets
    assert not any("imagePullSecrets" in text or "submitterPod" in text for text in rendered().values())


def test_a_submitter_of_our_own_satisfies_the_schema(schemas: dict[str, Any]) -> None:
    text = rendered(image_pull_secret="registry")["kuberay/rayjob-clean.yaml"]
    (job,) = [document for document in yaml.safe_load_all(text) if document["kind"] == "RayJob"]
    schemas["RayJob"].validate(job)


def test_readiness_of_service_workers_is_left_to_kuberay() -> None:
    """It adds the check of the Serve proxy only to pods without a readiness probe of their own."""
    for kind, key in (("RayCluster", None), ("RayJob", "rayClusterSpec"), ("RayService", "rayClusterConfig")):
        for document in of_kind(kind):
            spec = document["spec"][key] if key else document["spec"]
            workers = [group["template"]["spec"]["containers"][0] for group in spec["workerGroupSpecs"]]
            assert "readinessProbe" in spec["headGroupSpec"]["template"]["spec"]["containers"][0]
            assert ["readinessProbe" in worker for worker in workers] == [kind != "RayService"] * 2


OURS = {"podSelector": {"matchLabels": {"rayclean/cluster": "rayclean"}}}


def namespace(name: str) -> Document:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_the_network_policy_covers_every_pod() -> None:
    (policy,) = of_kind("NetworkPolicy")
    assert {"podSelector": policy["spec"]["podSelector"]} == OURS
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_network_policy_opens_the_dashboard_to_the_operator_and_submitters_alone() -> None:
    submitters = {
        "podSelector": {"matchExpressions": [{"key": "batch.kubernetes.io/job-name", "operator": "Exists"}]}
    }
    annotates = {"podSelector": {"matchLabels": {"rayclean/annotates": "true"}}}
    (policy,) = of_kind("NetworkPolicy")
    found = [
        (rule["from"], [(port["port"], port["protocol"]) for port in rule.get("ports", [])])
        for rule in policy["spec"]["ingress"]
    ]
    assert found == [
        ([OURS], []),  # among themselves
        ([submitters, namespace("kuberay-operator")], [(8265, "TCP"), (8000, "TCP")]),
        ([namespace("monitoring")], [(8080, "TCP")]),
        ([annotates], [(8000, "TCP")]),
    ]


def ways_out(text: str) -> list[tuple[list[Document], list[tuple[int, str]]]]:
    return [
        (rule.get("to", []), [(port["port"], port["protocol"]) for port in rule.get("ports", [])])
        for rule in yaml.safe_load(text)["spec"]["egress"]
    ]


def test_the_network_policy_lets_pods_out_to_named_places_alone() -> None:
    (path,) = (path for path in KUBERAY if path.stem == "network-policy")
    dns = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    dns.append({"ipBlock": {"cidr": "169.254.20.10/32"}})  # NodeLocal DNSCache
    among, names, anywhere, *named = ways_out(path.read_text())
    assert among == ([OURS], [])
    assert names == (dns, [(53, "UDP"), (53, "TCP")])
    assert anywhere == ([], [(443, "TCP"), (6443, "TCP")])
    listed = tomllib.loads((CLUSTER / "parameters.toml").read_text())["kubernetes"]["egress"]
    assert named == [
        ([{"ipBlock": {"cidr": place["cidr"]}}], [(port, "TCP") for port in place["ports"]])
        for place in listed
    ]
    more = {"cidr": "10.0.0.2/32", "ports": [53], "protocol": "UDP"}
    text = rendered(kubernetes={"egress": [more]})["kuberay/network-policy.yaml"]
    assert ways_out(text)[3:] == [([{"ipBlock": {"cidr": "10.0.0.2/32"}}], [(53, "UDP")])]


SECRET = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)


def secrets_in(part: Any) -> Iterator[str]:
    """What is named like a secret and has its value beside it: `name`/`value` pairs, plain fields, and in texts (options,
    commands, configs) what is assigned. A value that begins with $ is read where the command runs.
    """
    if isinstance(part, list):
        for each in part:
            yield from secrets_in(each)
    elif isinstance(part, str):
        for name, value in re.findall(r"(\w+)[\"']?\s*(?:=|:\s)\s*[\"']?(?=([^\s\"']+))", part):
            if SECRET.search(name) and not value.startswith("$"):
                yield f"{name}={value}"
    elif isinstance(part, dict):
        if part.get("kind") == "Secret":
            yield "kind: Secret"
        if "value" in part and SECRET.search(str(part.get("name", ""))):
            yield f"{part['name']}: {part['value']}"
        for key, value in part.items():
            if isinstance(value, str) and re.fullmatch(r"\w+", key) and "_" in key and SECRET.search(key):
                yield f"{key}: {value}"
            yield from secrets_in(value)


def test_no_secret_stands_in_a_manifest() -> None:
    for path in [*KUBERAY, CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml"]:
        assert list(secrets_in(documents(path))) == [], path.name


@pytest.mark.parametrize("where", ["env", "field", "config", "run_options", "commands", "kind"])
def test_a_planted_secret_is_found(where: str) -> None:
    """In each place where somebody might put one."""
    cluster, config = of_kind("RayCluster")[0], of_kind("ConfigMap")[0]
    (up,) = documents(CLUSTER / "aws.yaml")
    container = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    documents_ = [cluster, config, up]
    assert list(secrets_in(documents_)) == []
    if where == "env":
        container["env"].append({"value": "hf_x", "name": "HF_TOKEN"})
    elif where == "field":
        container["api_key"] = "sk-x"
    elif where == "config":
        config["data"]["run.toml"] += 'api_key_env = "KEY"\napi_key = "sk-x"\n'
    elif where == "run_options":
        up["docker"]["run_options"].append("--env=WANDB_API_KEY=x")
    elif where == "commands":
        up["head_start_ray_commands"].append("export AWS_SECRET_ACCESS_KEY=x; ray start")
    else:
        documents_.append({"apiVersion": "v1", "kind": "Secret"})
    assert len(list(secrets_in(documents_))) == 1


def test_jobs_run_commands_that_rayclean_understands(tmp_path: Path) -> None:
    """The configs in the manifests are checked like those of any user."""
    for job in of_kind("RayJob"):
        program, verb, file, size = job["spec"]["entrypoint"].split()
        assert program == "rayclean"
        name = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"][-1]["configMap"][
            "name"
        ]
        (config,) = [document for document in of_kind("ConfigMap") if document["metadata"]["name"] == name]
        for key, text in config["data"].items():
            (tmp_path / key).write_text(text)
        local = str(tmp_path / Path(file).name)
        layer = str(ROOT / size.removeprefix("/opt/rayclean/"))
        data = tmp_path / "x.csv"
        data.write_text("text,label\na,b\n")
        if verb == "clean":
            config_ = load_config(local, [layer])
            check_plugins(config_)
            assert config_.output.startswith("s3://")
        else:
            spec = load_sweep(local, [layer, f"dataset.path={data}", f"output={tmp_path}"])
            assert len(make_plan(spec).work) == 15


def test_the_serve_config_satisfies_rays_schema() -> None:
    from rayclean.runtime.llm_service import LlmService

    from ray.serve.schema import ServeDeploySchema

    (service,) = of_kind("RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "rayclean.runtime.llm_service:app"
    assert LlmService(**application.args).server.gpu is True  # decided here, not by what is up when it starts
    without = yaml.safe_load(rendered(gpu_workers={"max": 0})["kuberay/rayservice.yaml"])
    (on_cpus,) = yaml.safe_load(without["spec"]["serveConfigV2"])["applications"]
    assert LlmService(**on_cpus["args"]).server.gpu is False
    planted = yaml.safe_load(service["spec"]["serveConfigV2"].replace("import_path", "importpath"))
    with pytest.raises(ValueError, match="import"):
        ServeDeploySchema.model_validate(planted)


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_up_files_satisfy_rays_schema(cloud: str) -> None:
    import ray.autoscaler

    (config,) = documents(CLUSTER / f"{cloud}.yaml")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    typo = {**config, "max_worker": 3}
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(typo, schema)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert all("--dashboard-host=127.0.0.1" in c for c in config["head_start_ray_commands"] if "--head" in c)
    assert config["provider"]["use_internal_ips"] is True


def test_aws_is_prepared_and_validated_by_ray_up_itself() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents(CLUSTER / "aws.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    prepared = prepare_config(copy.deepcopy(config))
    assert (
        prepared["setup_commands"] == prepared["head_setup_commands"] == []
    )  # no package over the image's own
    assert all("ImageId" not in t["node_config"] for t in config["available_node_types"].values())
    chosen = yaml.safe_load(rendered(aws={"image": "ami-1"})["aws.yaml"])
    assert {t["node_config"]["ImageId"] for t in chosen["available_node_types"].values()} == {"ami-1"}
    broken = copy.deepcopy(config)
    broken["available_node_types"]["gpu"]["min_workers"] = 99  # more than max_workers of all
    with pytest.raises(Exception, match="max_workers"):
        validate_config(prepare_config(broken))


def node_configs(text: str) -> dict[str, Document]:
    """What a cloud is asked for, by node type."""
    return {name: kind["node_config"] for name, kind in yaml.safe_load(text)["available_node_types"].items()}


def test_only_the_head_has_the_role_that_starts_workers() -> None:
    """A role in the head's node type replaces the one that Ray would make with the rights that it needs."""
    files = rendered(
        aws={"head_instance_profile": "arn:head", "worker_instance_profile": "arn:worker"},
        gcp={"head_service_account": "head@x", "worker_service_account": "worker@x"},
    )
    aws = {
        name: config["IamInstanceProfile"]["Arn"] for name, config in node_configs(files["aws.yaml"]).items()
    }
    assert aws == {"head": "arn:head", "cpu": "arn:worker", "gpu": "arn:worker"}
    gcp = {
        name: [account["email"] for account in config["serviceAccounts"]]
        for name, config in node_configs(files["gcp.yaml"]).items()
    }
    assert gcp == {"head": ["head@x"], "cpu": ["worker@x"], "gpu": ["worker@x"]}


def test_gcp_nodes_of_a_named_subnetwork_have_no_public_address() -> None:
    """Ray gives one to every node type without `networkInterfaces`; the API to every interface with `accessConfigs`."""
    place = "projects/p/regions/europe-west4/subnetworks/private"
    for config in node_configs(rendered(gcp={"subnetwork": place})["gcp.yaml"]).values():
        assert config["networkInterfaces"] == [{"subnetwork": place}]
    assert "does not keep nodes from public addresses" in rendered()["gcp.yaml"]


def test_aws_nodes_of_named_subnets_have_no_public_address() -> None:
    """Ray's own choice of subnets and of a security group, on moto's EC2."""
    from ray.autoscaler._private.aws import config as ray_aws
    from ray.autoscaler._private.util import prepare_config

    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")

    def placed(**aws: Any) -> list[Document]:
        config = prepare_config(yaml.safe_load(rendered(aws=aws)["aws.yaml"]))
        config = ray_aws._configure_security_group(ray_aws._configure_subnet(config))
        return [kind["node_config"] for kind in config["available_node_types"].values()]

    region = tomllib.loads((CLUSTER / "parameters.toml").read_text())["aws"]["region"]
    with moto.mock_aws():
        ec2 = boto3.resource("ec2", region)
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")
        subnet = ec2.create_subnet(VpcId=network.id, CidrBlock="10.0.1.0/24")
        group = ec2.create_security_group(GroupName="own", Description="own", VpcId=network.id)
        chosen = placed(subnets=[subnet.id], security_group=group.id)
        assert [(c["SubnetIds"], c["SecurityGroupIds"]) for c in chosen] == [([subnet.id], [group.id])] * 3
        assert not any({"NetworkInterfaces", "AssociatePublicIpAddress"} & set(c) for c in chosen)
        assert not subnet.map_public_ip_on_launch
        # What the parameters are for.
        left = placed()
        assert any(ec2.Subnet(name).map_public_ip_on_launch for c in left for name in c["SubnetIds"])
        (made,) = {name for c in left for name in c["SecurityGroupIds"]}
        opened = [rule for rule in ec2.SecurityGroup(made).ip_permissions if rule.get("FromPort") == 22]
        assert opened[0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    assert "does not keep nodes from public addresses" in rendered()["aws.yaml"]


def test_dashboards_draw_only_metrics_that_exist() -> None:
    """Every query of the Grafana file names a metric of `runtime/prometheus.py`, or one of Ray's own."""
    import rayclean.runtime.prometheus as metrics

    board = json.loads((CLUSTER / "grafana" / "rayclean.json").read_text())
    known = set(re.findall(r"rayclean_\w+", metrics.__doc__ or ""))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 8
    for query in queries:
        named = set(re.findall(r"ray_(rayclean_\w+)", query))
        assert named <= known, f"{named - known} in {query!r}"
        assert named or "ray_" in query
    drawn = set(re.findall(r"ray_(rayclean_\w+)", " ".join(queries)))
    assert drawn == known, f"not drawn: {known - drawn}"
