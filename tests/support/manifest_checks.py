"""What a Kubernetes API server or a running pod would complain of in a manifest, and its schema does not see.

Owns: these rules, each a function from a manifest to complaints. Never here: a manifest (manifests); what the schema knows.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath

from sidecar.cli import parse
from sidecar.config import Config
from sidecar.errors import RelayError
from sidecar.rules.model import Match
from sidecar.rules.plan import make_plan
from tests.support.manifests import APP, RULES, SIDECAR, Manifest, Object, added_capabilities, hook

LABEL = re.compile(r"(?!.{64})[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # RFC 1123
SUBDOMAIN = re.compile(r"(?!.{254})[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PORT_NAME = re.compile(r"(?!.{16})(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # RFC 6335
CONFIG_KEY = re.compile(r"(?!.{254})[-._a-zA-Z0-9]+")

RESTART, PULL = ("Always", "OnFailure", "Never"), ("Always", "IfNotPresent", "Never")
PROTOCOLS, SECCOMP, MEDIA = ("TCP", "UDP", "SCTP"), ("RuntimeDefault", "Localhost", "Unconfined"), ("", "Memory")
CAPABILITIES = ("CHOWN", "NET_ADMIN", "NET_RAW", "SETGID", "SETPCAP", "SETUID")  # those that can be of use here
FOR_TPROXY = ["CHOWN", "NET_RAW", "SETGID", "SETPCAP", "SETUID"]
PORTS = {"relay-outbound": 15002, "relay-inbound": 15006, "relay-metrics": 15020, "relay-health": 15021}
HEALTH_PAGES = ("/healthz", "/readyz", "/healthz/ready")
# Pod Security, "restricted".
RESTRICTED_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
MARGIN_SECONDS = 2  # for what the relay says at its end

Complaints = Iterator[str]


def complaints(manifest: Manifest) -> list[str]:
    """Everything that is wrong with it; a configuration that cannot be read is the only one then."""
    try:
        config = manifest.config()
    except RelayError as error:
        return [f"relay.toml: {error}"]
    plain: Iterable[Callable[[Manifest], Complaints]] = (names, enums, ports, volumes, probes, commands, order, rules_container)
    told: Iterable[Callable[[Manifest, Config], Complaints]] = (configuration, users, grace, admin_socket, relay_ports)
    return [
        *chain.from_iterable(check(manifest) for check in plain),
        *chain.from_iterable(check(manifest, config) for check in told),
    ]


def names(manifest: Manifest) -> Complaints:
    """Objects, containers, volumes, keys."""
    for each in manifest.objects:
        if not SUBDOMAIN.fullmatch(each["metadata"]["name"]):
            yield f"{each['kind']}: name {each['metadata']['name']!r}"
    for what, entries in (("container", manifest.containers), ("volume", manifest.spec["volumes"])):
        called = [entry["name"] for entry in entries]
        yield from (f"{what}: name {name!r}" for name in called if not LABEL.fullmatch(name))
        yield from (f"{what}: name {name!r} twice" for name, count in Counter(called).items() if count > 1)
    yield from (f"ConfigMap: key {key!r}" for key in manifest.one("ConfigMap")["data"] if not CONFIG_KEY.fullmatch(key))


def enums(manifest: Manifest) -> Complaints:
    """Words of which Kubernetes knows a few."""
    spec = manifest.spec
    found: list[tuple[str, object, tuple[str, ...]]] = [("restartPolicy", spec.get("restartPolicy", "Always"), RESTART)]
    found += [
        ("restartPolicy of an init container", each.get("restartPolicy", "Always"), ("Always",)) for each in manifest.containers
    ]
    found += [("imagePullPolicy", each.get("imagePullPolicy"), PULL) for each in manifest.containers]
    found += [
        ("protocol", port.get("protocol", "TCP"), PROTOCOLS) for each in manifest.containers for port in each.get("ports", [])
    ]
    found += [("medium", volume["emptyDir"].get("medium", ""), MEDIA) for volume in spec["volumes"] if "emptyDir" in volume]
    for context in (spec["securityContext"], *(each.get("securityContext", {}) for each in manifest.containers)):
        found += [("seccompProfile", context["seccompProfile"].get("type"), SECCOMP)] if "seccompProfile" in context else []
        capabilities = context.get("capabilities", {})
        found += [("capability", name, CAPABILITIES) for name in capabilities.get("add", [])]
        found += [("capability to drop", name, ("ALL",)) for name in capabilities.get("drop", [])]
    yield from (f"{what}: {value!r}" for what, value, known in found if value not in known)
    yield from (f"{each['name']}: restartPolicy" for each in spec["containers"] if "restartPolicy" in each)


def ports(manifest: Manifest) -> Complaints:
    """Names as Kubernetes has them; each number once in the pod; none published on the node."""
    listed = [port for each in manifest.containers for port in each.get("ports", [])]
    called = Counter(port["name"] for port in listed)
    numbers = Counter((port["containerPort"], port.get("protocol", "TCP")) for port in listed)
    yield from (f"port: name {name!r}" for name in called if not PORT_NAME.fullmatch(name))
    yield from (f"port: name {name!r} twice" for name, count in called.items() if count > 1)
    yield from (f"port: {number} twice" for (number, _), count in numbers.items() if count > 1)
    yield from (f"port: {number}" for number, _ in numbers if not 0 < number < 65536)
    yield from (f"port: {port['containerPort']} on the node" for port in listed if "hostPort" in port)


def volumes(manifest: Manifest) -> Complaints:
    """Each mount has its volume, each volume its mount, and the ConfigMap is the one beside it, with the file that is named."""
    volumes = {volume["name"]: volume for volume in manifest.spec["volumes"]}
    mounts = [mount for each in manifest.containers for mount in each.get("volumeMounts", [])]
    yield from (f"mount: no volume {mount['name']!r}" for mount in mounts if mount["name"] not in volumes)
    yield from (f"volume {name!r} is not mounted" for name in volumes.keys() - {mount["name"] for mount in mounts})
    configs = manifest.one("ConfigMap")
    for name, volume in volumes.items():
        if "configMap" in volume and volume["configMap"]["name"] != configs["metadata"]["name"]:
            yield f"volume {name!r}: no ConfigMap {volume['configMap']['name']!r}"
    for container in (manifest.container(RULES), manifest.container(SIDECAR)):
        paths = {mount["mountPath"] for mount in container["volumeMounts"] if "configMap" in volumes.get(mount["name"], {})}
        file = PurePosixPath(next(each["value"] for each in container["env"] if each["name"] == "RELAY_CONFIG"))
        if str(file.parent) not in paths or file.name not in configs["data"]:
            yield f"{container['name']}: no file {file}"
        if len({mount["mountPath"] for mount in container["volumeMounts"]}) < len(container["volumeMounts"]):
            yield f"{container['name']}: two mounts at one place"


def probes(manifest: Manifest) -> Complaints:
    """A probe asks its own container at a port that it lists, the relay for a page that it has."""
    for container in manifest.containers:
        listed = {port["name"] for port in container.get("ports", [])}
        for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
            asked = container.get(kind, {}).get("httpGet")
            if asked and asked["port"] not in listed:
                yield f"{container['name']}: {kind}: no port {asked['port']!r}"
            if (
                asked
                and container["name"] == SIDECAR
                and (asked["port"], asked["path"]) not in {("relay-health", page) for page in HEALTH_PAGES}
            ):
                yield f"{container['name']}: {kind}: no page {asked['path']!r}"
    relay = manifest.container(SIDECAR)
    yield from (f"{SIDECAR}: no {kind}" for kind in ("livenessProbe", "readinessProbe") if kind not in relay)


def commands(manifest: Manifest) -> Complaints:
    """Every command of ours is one that the program takes."""
    relay, rules = manifest.container(SIDECAR), manifest.container(RULES)
    started = relay.get("startupProbe", {}).get("exec", {}).get("command", [])
    asked = [each for each in (hook(relay, "postStart"), hook(relay, "preStop"), started) if "relay-sidecar" in each]
    asked = [each[each.index("relay-sidecar") + 1 :] for each in asked]
    for words in (rules.get("args", []), relay.get("args", []), *asked):
        try:
            parse(words)
        except SystemExit:
            yield f"no command: relay-sidecar {' '.join(words)}"
    if "command" in relay or "command" in rules:
        yield "command: the image's entry point is meant"
    gate = started if manifest.is_native else hook(relay, "postStart")
    if "wait" not in gate:
        yield f"{SIDECAR}: the app may start before the relay"
    if started and parse(started[1:]).timeout / 1000 >= relay["startupProbe"].get("timeoutSeconds", 1):
        yield f"{SIDECAR}: startupProbe: ended before it has an answer"


def order(manifest: Manifest) -> Complaints:
    """Rules, relay, app."""
    called = [each["name"] for each in manifest.containers]
    if not called.index(RULES) < called.index(SIDECAR) < called.index(APP):
        yield f"order: {called}"
    inits = {each["name"]: each.get("restartPolicy") for each in manifest.spec["initContainers"]}
    if inits != ({RULES: None, SIDECAR: "Always"} if manifest.is_native else {RULES: None}):
        yield f"init containers: {inits}"


def rules_container(manifest: Manifest) -> Complaints:
    """It applies the rules with CAP_NET_ADMIN and nothing else."""
    container = manifest.container(RULES)
    context = container["securityContext"]
    if container.get("args") != ["rules", "apply"]:
        yield f"{RULES}: {container.get('args')}"
    if context.get("runAsUser") != 0 or added_capabilities(container) != ["NET_ADMIN"]:
        yield f"{RULES}: rules take user 0 and NET_ADMIN"
    yield from (f"{RULES}: {what}" for what in loose(manifest, container))


def loose(manifest: Manifest, container: Object) -> Complaints:
    """What Pod Security's level "restricted" asks of a container, beside its user and what it adds."""
    context, pod = container["securityContext"], manifest.spec
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "privileges can be gained"
    if context.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    if context.get("readOnlyRootFilesystem") is not True:  # our own wish
        yield "the root is writable"
    profile = context.get("seccompProfile") or pod["securityContext"].get("seccompProfile", {})
    if profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp profile"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "a namespace of the node's"
    if any(not set(volume) & set(RESTRICTED_VOLUMES) for volume in pod["volumes"]):
        yield "a volume of the node's"


def configuration(manifest: Manifest, config: Config) -> Complaints:
    """It says nothing that the relay warns of, and what other lines of the manifest depend on stands there."""
    yield from (f"relay.toml: {warning}" for warning in config.warnings)
    for key in ("user", "group", "drain_timeout", "workers", "max_flows"):
        if key not in config.relay.given:
            yield f"relay.toml: relay.{key} is left to the default"
    if config.admin.metrics is None or config.admin.metrics.host != "::":
        yield "relay.toml: admin.metrics cannot be scraped"


def users(manifest: Manifest, config: Config) -> Complaints:
    """The relay's user is who the container runs as, or can become, and whom the rules leave alone; nobody else is."""
    container = manifest.container(SIDECAR)
    context, user, group = container["securityContext"], config.relay.user.id, config.relay.group.id
    if (user, group) != (1337, 1337):
        yield f"relay.user: the image's is 1337, not {user}:{group}"
    if any(listener.capture == "tproxy" for listener in config.listeners):
        if context.get("runAsUser") != 0 or context.get("runAsNonRoot"):
            yield f"{SIDECAR}: Kubernetes gives capabilities to user 0 alone"
        if added_capabilities(container) != FOR_TPROXY:
            yield f"{SIDECAR}: tproxy takes {FOR_TPROXY}"
    else:
        if (context.get("runAsUser"), context.get("runAsGroup")) != (user, group):
            yield f"{SIDECAR}: runs as {context.get('runAsUser')}:{context.get('runAsGroup')}, not as relay.user"
        if context.get("runAsNonRoot") is not True or added_capabilities(container):
            yield f"{SIDECAR}: does not fit Pod Security's restricted"
        if config.rules.mark:
            yield "rules.mark: cannot be set without CAP_NET_RAW"
    yield from (f"{SIDECAR}: {what}" for what in loose(manifest, container))
    exempt = {match for rule in make_plan(config, "nft").rules() for match in rule.matches if rule.actions[0].kind == "return"}
    if not {Match("uid", (user,)), Match("gid", (group,))} <= exempt:
        yield "the rules do not exempt the relay's user"
    app = manifest.container(APP).get("securityContext", {}) | manifest.spec["securityContext"]
    if app.get("runAsUser") == user or app.get("runAsGroup") == group:
        yield f"{APP}: is the relay's user, whom the rules exempt"


def grace(manifest: Manifest, config: Config) -> Complaints:
    """The kubelet kills nobody who still drains."""
    drain = config.relay.drain_timeout / 1000
    before = [seconds_of(hook(manifest.container(name), "preStop")) for name in (SIDECAR, APP)]
    if manifest.spec.get("terminationGracePeriodSeconds", 30) < max(before) + drain + MARGIN_SECONDS:
        yield f"terminationGracePeriodSeconds: less than {max(before):g} s of preStop, {drain:g} s of drain, and a margin"
    if before[0] != (0 if manifest.is_native else before[1]):
        yield f"preStop: {SIDECAR} takes connections for {before[0]:g} s, {APP} for {before[1]:g} s"


def seconds_of(command: list[str]) -> float:
    """How long a preStop sleeps."""
    return float(command[1]) if command[:1] == ["sleep"] else 0.0


def admin_socket(manifest: Manifest, config: Config) -> Complaints:
    """Its directory is made by the relay, inside a volume: everyone may write to an emptyDir itself, and then it refuses."""
    empty = {volume["name"] for volume in manifest.spec["volumes"] if "emptyDir" in volume}
    mounts = [mount["mountPath"] for mount in manifest.container(SIDECAR)["volumeMounts"] if mount["name"] in empty]
    if str(PurePosixPath(config.admin.socket).parent.parent) not in mounts:
        yield f"admin.socket: {config.admin.socket} cannot be made in {mounts}"


def relay_ports(manifest: Manifest, config: Config) -> Complaints:
    """The ports that the container lists are those that the relay takes."""
    listed = {port["name"]: port["containerPort"] for port in manifest.container(SIDECAR).get("ports", [])}
    taken = {f"relay-{listener.name}": listener.port for listener in config.listeners}
    for name, endpoint in (("metrics", config.admin.metrics), ("health", config.admin.health)):
        taken |= {f"relay-{name}": endpoint.port} if endpoint else {}
    if listed != taken:
        yield f"ports: listed {listed}, taken {taken}"
    if taken != PORTS:
        yield f"ports: taken {taken}, by default {PORTS}"
