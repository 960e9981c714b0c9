"""The manifests: valid for Kubernetes' schemas and for what these do not see. Each rule is seen failing by a mutation."""

import re

import kubernetes_validate
import pytest
import tomli

from tests.support.manifest_checks import PORTS, complaints
from tests.support.manifests import DEPLOY, NAMES, SIDECAR, Manifest

# The oldest with native sidecars by default, one between, and the newest that the validator knows.
VERSIONS = ("1.29", "1.33", "1.37")

POD, TPROXY, NATIVE = NAMES
SPEC, CONFIG = "Pod/spec", "ConfigMap/data/relay.toml"
RELAY, RULES, APP = f"{SPEC}/containers/relay-sidecar", f"{SPEC}/initContainers/relay-rules", f"{SPEC}/containers/app"
NATIVE_RELAY = f"{SPEC}/initContainers/relay-sidecar"
CONTEXT = f"{RELAY}/securityContext"

# manifest, place, what stands there instead (None: nothing), what is to be said of it.
MUTATIONS = [
    (POD, "Pod/metadata/name", "app_with_relay", "Pod: name 'app_with_relay'"),
    (POD, f"{SPEC}/volumes/relay-run/name", "relay_run", "volume: name 'relay_run'"),
    (POD, "ConfigMap/data", {"relay.toml": "", "a b": ""}, "ConfigMap: key 'a b'"),
    (POD, f"{SPEC}/restartPolicy", "Sometimes", "restartPolicy: 'Sometimes'"),
    (NATIVE, f"{NATIVE_RELAY}/restartPolicy", "OnFailure", "restartPolicy of an init container: 'OnFailure'"),
    (POD, f"{RELAY}/restartPolicy", "Always", "relay-sidecar: restartPolicy"),
    (POD, f"{APP}/imagePullPolicy", "ifNotPresent", "imagePullPolicy: 'ifNotPresent'"),
    (POD, f"{RELAY}/ports/0/protocol", "tcp", "protocol: 'tcp'"),
    (POD, f"{SPEC}/securityContext/seccompProfile/type", "Default", "seccompProfile: 'Default'"),
    (POD, f"{SPEC}/volumes/relay-run/emptyDir/medium", "memory", "medium: 'memory'"),
    (POD, f"{RULES}/securityContext/capabilities/add", ["CAP_NET_ADMIN"], "capability: 'CAP_NET_ADMIN'"),
    (POD, f"{CONTEXT}/capabilities/drop", ["all"], "capability to drop: 'all'"),
    (POD, f"{RELAY}/ports/0/name", "relay-outbound-port", "port: name 'relay-outbound-port'"),
    (POD, f"{RELAY}/ports/0/name", "15002", "port: name '15002'"),
    (POD, f"{APP}/ports/0/name", "relay-health", "port: name 'relay-health' twice"),
    (POD, f"{APP}/ports/0/containerPort", 15006, "port: 15006 twice"),
    (POD, f"{APP}/ports/0/containerPort", 70000, "port: 70000"),
    (POD, f"{APP}/ports/0/hostPort", 80, "port: 80 on the node"),
    (POD, f"{RELAY}/volumeMounts/relay-run/name", "run", "mount: no volume 'run'"),
    (
        POD,
        f"{RELAY}/volumeMounts",
        [{"name": "relay-config", "mountPath": "/etc/relay-sidecar"}],
        "volume 'relay-run' is not mounted",
    ),
    (POD, f"{RELAY}/volumeMounts/relay-run/mountPath", "/etc/relay-sidecar", "relay-sidecar: two mounts at one place"),
    (POD, f"{SPEC}/volumes/relay-config/configMap/name", "relay", "volume 'relay-config': no ConfigMap 'relay'"),
    (POD, f"{RULES}/env/RELAY_CONFIG/value", "/etc/relay.toml", "relay-rules: no file /etc/relay.toml"),
    (POD, f"{RELAY}/env/RELAY_CONFIG/value", "/etc/relay-sidecar/a.toml", "relay-sidecar: no file /etc/relay-sidecar/a.toml"),
    (POD, f"{APP}/readinessProbe/httpGet/port", "web", "app: readinessProbe: no port 'web'"),
    (POD, f"{RELAY}/livenessProbe/httpGet/path", "/health", "relay-sidecar: livenessProbe: no page '/health'"),
    (POD, f"{RELAY}/readinessProbe/httpGet/port", "relay-metrics", "relay-sidecar: readinessProbe: no page '/readyz'"),
    (POD, f"{RELAY}/readinessProbe", None, "relay-sidecar: no readinessProbe"),
    (POD, f"{RELAY}/lifecycle/postStart/exec/command", ["relay-sidecar", "await"], "no command: relay-sidecar await"),
    (POD, f"{RELAY}/args", ["--port", "1"], "no command: relay-sidecar --port 1"),
    (POD, f"{RELAY}/command", ["relay-sidecar"], "command: the image's entry point is meant"),
    (POD, f"{RELAY}/lifecycle/postStart", None, "relay-sidecar: the app may start before the relay"),
    (NATIVE, f"{NATIVE_RELAY}/startupProbe", None, "relay-sidecar: the app may start before the relay"),
    (NATIVE, f"{NATIVE_RELAY}/startupProbe/timeoutSeconds", 10, "relay-sidecar: startupProbe: ended before it has an answer"),
    (NATIVE, f"{NATIVE_RELAY}/restartPolicy", None, "init containers: {'relay-rules': None, 'relay-sidecar': None}"),
    (POD, f"{RULES}/args", ["rules", "apply", "--no-probe"], "relay-rules: ['rules', 'apply', '--no-probe']"),
    (POD, f"{RULES}/securityContext/runAsUser", 1337, "relay-rules: rules take user 0 and NET_ADMIN"),
    (POD, f"{RULES}/securityContext/capabilities/add", None, "relay-rules: rules take user 0 and NET_ADMIN"),
    (POD, f"{RULES}/securityContext/readOnlyRootFilesystem", False, "relay-rules: the root is writable"),
    (POD, f"{CONTEXT}/allowPrivilegeEscalation", None, "relay-sidecar: privileges can be gained"),
    (POD, f"{CONTEXT}/privileged", True, "relay-sidecar: privileges can be gained"),
    (TPROXY, f"{CONTEXT}/capabilities/drop", None, "relay-sidecar: capabilities are not dropped"),
    (POD, f"{SPEC}/securityContext/seccompProfile", None, "relay-sidecar: no seccomp profile"),
    (POD, f"{SPEC}/hostNetwork", True, "relay-sidecar: a namespace of the node's"),
    (POD, f"{SPEC}/volumes/1", {"name": "relay-run", "hostPath": {"path": "/run"}}, "relay-sidecar: a volume of the node's"),
    (POD, f"{CONTEXT}/runAsUser", 1000, "relay-sidecar: runs as 1000:1337, not as relay.user"),
    (POD, f"{CONTEXT}/runAsNonRoot", None, "relay-sidecar: does not fit Pod Security's restricted"),
    (POD, f"{CONTEXT}/capabilities/add", ["NET_RAW"], "relay-sidecar: does not fit Pod Security's restricted"),
    (TPROXY, f"{CONTEXT}/runAsUser", 1337, "relay-sidecar: Kubernetes gives capabilities to user 0 alone"),
    (TPROXY, f"{CONTEXT}/capabilities/add", ["NET_RAW"], "relay-sidecar: tproxy takes"),
    (POD, f"{APP}/securityContext", {"runAsUser": 1337}, "app: is the relay's user, whom the rules exempt"),
    (
        POD,
        f"{SPEC}/terminationGracePeriodSeconds",
        30,
        "terminationGracePeriodSeconds: less than 5 s of preStop, 25 s of drain",
    ),
    (POD, f"{SPEC}/terminationGracePeriodSeconds", None, "terminationGracePeriodSeconds: less than 5 s of preStop"),
    (POD, f"{RELAY}/lifecycle/preStop", None, "preStop: relay-sidecar takes connections for 0 s, app for 5 s"),
    (
        POD,
        f"{RELAY}/volumeMounts/relay-run/mountPath",
        "/run/relay-sidecar",
        "admin.socket: /run/relay-sidecar/admin.sock cannot be made",
    ),
    (POD, f"{RELAY}/ports/1/containerPort", 15001, "ports: listed"),
]

# manifest, a line of the ConfigMap, what it is instead, what is to be said of it.
TOML_MUTATIONS = [
    (POD, 'user = "1337"', 'usr = "1337"', "relay.toml: "),
    (POD, 'user = "1337"', 'user = "1000"', "relay.user: the image's is 1337, not 1000:1337"),
    (POD, 'group = "1337"', "", "relay.toml: relay.group is left to the default"),
    (
        POD,
        'drain_timeout = "25s"',
        'drain_timeout = "30s"',
        "terminationGracePeriodSeconds: less than 5 s of preStop, 30 s of drain",
    ),
    (POD, "mark = 0 ", "mark = 1337 ", "rules.mark: cannot be set without CAP_NET_RAW"),
    (POD, "mark = 0 ", "exempt_owner = false\nmark = 1337 ", "the rules do not exempt the relay's user"),
    (POD, 'metrics = "[::]:15020"', 'metrics = "127.0.0.1:15020"', "relay.toml: admin.metrics cannot be scraped"),
    (POD, 'metrics = "[::]:15020"', 'metrics = "[::]:15090"', "ports: taken"),
    (TPROXY, "port = 15006", "port = 15007", "ports: listed"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_fits_the_schema(name: str, version: str) -> None:
    """kubectl apply would refuse what we ship."""
    for each in Manifest(name).objects:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("path", [f"{RELAY}/securityContext/runAsUsr", f"{SPEC}/grace", "ConfigMap/file"])
def test_the_schema_is_asked(path: str) -> None:
    """A misspelt key would pass, and the pod would run without what it says."""
    with pytest.raises(kubernetes_validate.ValidationError):
        for each in Manifest(POD).changed(path, 1).objects:
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)


def test_an_older_kubernetes_has_no_native_sidecars() -> None:
    """deploy/README.md names 1.29: a version that does not know these sidecars would wait for the relay to end."""
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(Manifest(NATIVE).one("Pod"), "1.27", strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_is_without_complaint(name: str) -> None:
    """The pod would not start, or would run without capture, without a way to stop, or with more privilege than it needs."""
    assert complaints(Manifest(name)) == []


@pytest.mark.parametrize(("name", "path", "value", "said"), MUTATIONS)
def test_a_wrong_manifest_is_noticed(name: str, path: str, value: object, said: str) -> None:
    """The test above would prove nothing of this line of a manifest."""
    assert [complaint for complaint in complaints(Manifest(name).changed(path, value)) if said in complaint]


@pytest.mark.parametrize(("name", "line", "instead", "said"), TOML_MUTATIONS)
def test_a_wrong_configuration_is_noticed(name: str, line: str, instead: str, said: str) -> None:
    """The relay in the pod would refuse its file, or other lines of the manifest would not fit it."""
    toml = Manifest(name).toml
    assert toml.count(f"\n{line}") == 1
    assert [
        each for each in complaints(Manifest(name).changed(CONFIG, toml.replace(f"\n{line}", f"\n{instead}"))) if said in each
    ]


@pytest.mark.parametrize(("name", "said"), [("-x", "container: name '-x'"), ("app", "container: name 'app' twice")])
def test_a_wrong_container_is_noticed(name: str, said: str) -> None:
    """The API server would refuse the pod."""
    manifest = Manifest(POD)
    manifest.spec["containers"].append({"name": name, "image": "x", "imagePullPolicy": "Always"})
    assert said in complaints(manifest)


def test_the_order_is_noticed() -> None:
    """The app would start before the relay, and its first connections would be refused."""
    manifest = Manifest(POD)
    manifest.spec["containers"].reverse()
    assert [complaint for complaint in complaints(manifest) if complaint.startswith("order: ")]


def test_native_and_classic_are_one_relay() -> None:
    """Who moves to the native sidecar would get another relay."""
    pod, native = Manifest(POD), Manifest(NATIVE)
    assert tomli.loads(native.toml) == tomli.loads(pod.toml)
    hooks = ("lifecycle", "startupProbe", "restartPolicy")
    ours, theirs = ({k: v for k, v in each.container(SIDECAR).items() if k not in hooks} for each in (native, pod))
    assert ours == theirs
    for name in ("relay-rules", "app"):
        assert native.container(name) == pod.container(name)


def test_the_image_is_what_the_manifests_count_on() -> None:
    """The container would run as another user, under another name, or with a compiler in it."""
    text = (DEPLOY / "Containerfile").read_text()
    last = text[text.rindex("\nFROM ") :]
    assert "\nUSER 1337:1337\n" in last
    assert '\nENTRYPOINT ["relay-sidecar"]\n' in last
    (exposed,) = re.findall(r"^EXPOSE (.*)$", last, re.M)
    assert {int(port) for port in exposed.split()} == set(PORTS.values())
    assert not re.search(r"\b(gcc|python3-dev|pip)\b", last)
    names = {each["image"] for name in NAMES for each in Manifest(name).containers if each["name"] != "app"}
    assert names == {"relay-sidecar:latest"}
    assert re.search(r"-t relay-sidecar \.", text)
