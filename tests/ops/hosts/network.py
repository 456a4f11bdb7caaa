"""Hosts of a network of their own on this machine: each is a network namespace behind one switch.

The namespaces have no names. A process holds each of them, and the kernel ends that process with ours, so nothing is left
behind even after `kill -9`. A host that is cut off gets no word about it: the switch drops its frames, its connections stay
open, and no address becomes unknown, as beyond a router.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.platform import ROOT, clean_env, eventually
from worker.local.processes import Child, ChildSpec, OsUser, ProcessSupervisor

_SWITCH = "switch"
_FORWARDS, _DROPS = "3", "0"  # states of a port


@dataclass(frozen=True)
class Host:
    """One host. `port` is its name at the switch."""

    name: str
    address: str
    mac: str
    holder: int

    @property
    def port(self) -> str:
        """The other end of its cable."""
        return f"p-{self.name}"

    def command(self, *words: str) -> tuple[str, ...]:
        """The command, run on this host."""
        spaces = f"/proc/{self.holder}/ns"
        return ("nsenter", f"--net={spaces}/net", f"--uts={spaces}/uts", "--", *words)

    def spec(self, spec: ChildSpec) -> ChildSpec:
        """The same process on this host. Another user is taken on inside, because only root may enter."""
        words = spec.command
        if isinstance(spec.os_user, OsUser):
            ids = (f"--reuid={spec.os_user.uid}", f"--regid={spec.os_user.gid}", "--clear-groups")
            # The kernel forgets the signal when the user changes.
            words = ("setpriv", *ids, f"--pdeathsig={spec.death_signal.name.removeprefix('SIG')}", *words)
        path = os.pathsep.join([spec.env.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        return replace(spec, command=self.command(*words), os_user=None, env={**spec.env, "PATH": path})


class Network:
    """The switch, the hosts, and this process as one more host."""

    def __init__(self, ip: Path, supervisor: ProcessSupervisor) -> None:
        self._ip, self._supervisor = str(ip), supervisor
        self._subnet = f"10.213.{100 + os.getpid() % 150}"
        self._device = f"dryt{os.getpid()}"
        self._numbers: dict[str, int] = {}
        self.hosts: dict[str, Host] = {}
        self.address = f"{self._subnet}.1"

    @property
    def networks(self) -> str:
        """All addresses, as a range."""
        return f"{self._subnet}.0/24"

    def build(self, names: list[str]) -> None:
        """Create the switch and these hosts."""
        self._numbers = {name: number for number, name in enumerate([_SWITCH, *names], start=10)}
        holders = {name: self._hold(name) for name in self._numbers}
        for name, number in self._numbers.items():
            eventually(lambda pid=holders[name].pid: _is_settled(pid), what=f"the namespaces of {name}")
            self.hosts[name] = Host(name, f"{self._subnet}.{number}", f"02:00:0a:d5:00:{number:02x}", holders[name].pid)
        switch = self.hosts.pop(_SWITCH)
        self._switch = switch
        self._batch(switch, ["link add br0 type bridge", "link set br0 up"])
        own = Host("test", self.address, "02:00:0a:d5:00:01", os.getpid())
        everyone = [own, *self.hosts.values()]
        for host in everyone:
            device = self._device if host is own else "eth0"
            self._run("link", "add", "name", device, "address", host.mac, "netns", str(host.holder),
                      "type", "veth", "peer", "name", host.port, "netns", str(switch.holder))  # fmt: skip
            # Known addresses: a host that is gone stays silent instead of becoming unreachable.
            known = [
                f"neigh add {one.address} lladdr {one.mac} nud permanent dev {device}"
                for one in everyone
                if one != host
            ]
            up = [f"addr add {host.address}/24 dev {device}", f"link set {device} up", *known]
            self._batch(None if host is own else host, up if host is own else ["link set lo up", *up])
        self._batch(switch, [f"link set {host.port} master br0 up" for host in everyone])

    def close(self) -> None:
        """Remove our own end; the rest goes with the processes."""
        subprocess.run([self._ip, "link", "delete", self._device], capture_output=True, check=False, timeout=20)

    @contextlib.contextmanager
    def cut_off(self, *names: str) -> Iterator[None]:
        """Drop all packets from and to these hosts until the block ends."""
        self._set_ports(names, _DROPS)
        try:
            yield
        finally:
            self._set_ports(names, _FORWARDS)

    @contextlib.contextmanager
    def slow(self, name: str, *, round_trip: float, loss: float) -> Iterator[None]:
        """Delay the packets of a host and lose some of them until the block ends.

        Not with netem: kernels of small virtual machines lack it. A process carries the frames instead.
        """
        host, switch = self.hosts[name], self._switch
        inner, outer = f"in-{name}", f"out-{name}"
        create = [f"link add {inner} type veth peer name {outer}", f"link set {inner} up"]
        self._batch(switch, [f"link set {host.port} nomaster", *create, f"link set {outer} master br0 up"])
        words = (sys.executable, "-P", str(Path(__file__).with_name("slow_link.py")), host.port, inner)
        words += (str(round_trip / 2), str(loss))
        child = self._supervisor.start(ChildSpec("slow-link", switch.command(*words), clean_env(), ROOT, None))
        try:
            yield
        finally:
            self._supervisor.stop([child], timeout=5)
            self._batch(switch, [f"link delete {inner}", f"link set {host.port} master br0"])

    def _hold(self, name: str) -> Child:
        words = ("unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && exec sleep infinity")
        return self._supervisor.start(ChildSpec(f"host {name}", words, dict(os.environ), ROOT, None))

    def _set_ports(self, names: tuple[str, ...], state: str) -> None:
        for name in names:
            words = ("bridge", "link", "set", "dev", self.hosts[name].port, "state", state)
            subprocess.run(self._switch.command(*words), capture_output=True, check=True, timeout=20)

    def _batch(self, host: Host | None, lines: list[str]) -> None:
        words = (self._ip, "-batch", "-")
        command = host.command(*words) if host else words
        text = "\n".join(lines) + "\n"
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 0, (host, done.stderr)

    def _run(self, *words: str) -> None:
        subprocess.run([self._ip, *words], capture_output=True, check=True, timeout=20)


def _is_settled(pid: int) -> bool:
    """Whether the process has its own namespaces and its name: it sleeps then."""
    return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"


@contextlib.contextmanager
def running_network(ip: Path, supervisor: ProcessSupervisor, names: list[str]) -> Iterator[Network]:
    """A network of these hosts until the block ends."""
    network = Network(ip, supervisor)
    try:
        network.build(names)
        yield network
    finally:
        network.close()
