"""Two-sided scripts and what each end saw of them.

A script is a list of steps that two ends of one TCP connection take: send, shut down, reset, close, stop reading, synchronise.
run_script() plays it on a pair of connected sockets and returns what each end saw. Whether the pair is connected directly or
through the relay must make no difference, and that is the whole property.

Owns: the players. Who may touch it: the property tests. Never here: a relay; a wait without a deadline.
"""

import errno
import hashlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import NamedTuple

PATIENCE_S = float(os.environ.get("RELAY_PATIENCE_S", "20"))
BLOCK = bytes(range(251)) * 1045  # a prime period, so that no lost or doubled piece of a usual size goes unseen
RESET_ERRORS = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}


class Step(NamedTuple):
    """end 0 is the client, 1 the origin. action: send, urgent, shut, reset, close, pause, resume, sync."""

    end: int
    action: str
    size: int = 0


class Saw(NamedTuple):
    """What an end saw: how many bytes, their hash, and how it ended: eof, reset, eof+reset, or what it did itself.

    "either" after its own FIN, when its peer closed without reading all: FIN and reset then run a race, directly as well.
    """

    received: int
    digest: str
    ending: str


@dataclass
class Player:
    """One end: what it still has to send, what it has received, what it knows of its peer's end."""

    sock: socket.socket
    offset: int = 0  # bytes handed to the kernel, of the endless stream BLOCK BLOCK ...
    to_send: int = 0
    urgent_at: list[int] = field(default_factory=list)  # offsets of the bytes still to send that are urgent
    received: int = 0
    digest: "hashlib._Hash" = field(default_factory=lambda: hashlib.blake2b(digest_size=8))
    reading: bool = True
    shut: bool = False
    eof: bool = False
    reset: bool = False
    gone: str = ""  # reset, close: what this end did itself

    @property
    def over(self) -> bool:
        return self.reset or bool(self.gone)

    def interest(self) -> int:
        if self.over:
            return 0
        wanted = select.POLLOUT if self.to_send else 0
        return wanted | (select.POLLIN if self.reading and not self.eof else 0)

    def lost(self, error: OSError) -> None:
        if error.errno not in RESET_ERRORS:
            raise error
        self.reset = True
        self.to_send = 0

    def read(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(error)
            return
        self.eof = not data
        self.received += len(data)
        self.digest.update(data)

    def write(self) -> None:
        begin = self.offset % 251
        urgent = self.urgent_at[:1] == [self.offset]
        room = 1 if urgent else self.urgent_at[0] - self.offset if self.urgent_at else self.to_send
        piece = BLOCK[begin : begin + min(room, len(BLOCK) - 251)]
        try:
            sent = self.sock.send(piece, socket.MSG_NOSIGNAL | (socket.MSG_OOB if urgent else 0))
        except BlockingIOError:
            return
        except OSError as error:
            # A failed write leaves what had arrived before it readable.
            self.drain()
            self.lost(error)
            return
        self.offset += sent
        self.to_send -= sent
        if urgent and sent:
            self.urgent_at.pop(0)

    def shutdown(self) -> None:
        self.shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # the reset has arrived, and nobody has asked the socket yet
            if error.errno != errno.ENOTCONN:
                raise
            self.drain()
            self.reset = True

    def drain(self) -> None:
        while not (self.eof or self.reset) and self.reading:
            before = self.received
            self.read()
            if self.received == before:
                return

    def saw(self, peer: "Player") -> Saw:
        ending = "+".join(word for word, holds in (("eof", self.eof), ("reset", self.reset)) if holds)
        if self.shut and peer.gone == "close":
            ending = "either"
        return Saw(self.received, self.digest.hexdigest(), self.gone or ending)


def pump(players: list[Player], until: "object", what: str) -> None:
    """Let both ends send and receive until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not until():  # type: ignore[operator]
        poll = select.poll()
        by_fd = {}
        for player in players:
            if not player.over:
                poll.register(player.sock, player.interest())
                by_fd[player.sock.fileno()] = player
        left = deadline - time.monotonic()
        events = poll.poll(max(0.0, left) * 1000) if left > 0 else []
        if not events:
            states = [(p.received, p.offset, p.to_send, p.eof, p.reset, p.gone, p.shut, p.reading) for p in players]
            raise AssertionError(f"stalled while waiting for {what}: {states}")
        for fd, event in events:
            player = by_fd[fd]
            if event & select.POLLOUT and player.to_send:
                player.write()
            if player.over:
                continue
            if event & (select.POLLIN | select.POLLHUP) and player.reading and not player.eof:
                player.read()
            elif event & select.POLLERR:
                code = player.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                player.drain()
                player.lost(OSError(code or errno.ECONNRESET, "told by poll"))


def run_script(client: socket.socket, origin: socket.socket, script: list[Step]) -> tuple[Saw, Saw]:
    """Play the script on two connected sockets, to the end; both are closed afterwards."""
    players = [Player(client), Player(origin)]
    for player in players:
        player.sock.setblocking(False)
        # Urgent bytes stay in their place, so that the hash sees them too.
        player.sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    try:
        for step in script:
            play(players, step)
        for player in players:
            player.reading = True
        for player, peer in (players, players[::-1]):
            finish(players, player, peer)
        pump(players, lambda: all(p.over or p.eof for p in players), "both ends to be told the end")
        return players[0].saw(players[1]), players[1].saw(players[0])
    finally:
        client.close()
        origin.close()


def finish(players: list[Player], player: Player, peer: Player) -> None:
    """Send the rest and the FIN. A reset that is due comes first: a FIN sent meanwhile would end the connection politely."""
    pump(players, lambda: player.over or not player.to_send or not peer.reading, "the send queue to empty")
    hear_reset(players, player, peer)
    if not player.over and not player.shut and not player.to_send:
        player.shutdown()


def reset_is_due(player: Player, peer: Player) -> bool:
    """Whether the end is going to be told of a reset: its peer reset, or closed before it had everything."""
    if player.over or (player.shut and peer.gone == "close"):
        return False
    return peer.gone == "reset" or (peer.gone == "close" and peer.received < player.offset)


def hear_reset(players: list[Player], player: Player, peer: Player) -> None:
    """Wait for a reset that is due. An end that does not read is told late (RESET_PATIENCE): that has a test of its own."""
    if reset_is_due(player, peer):
        player.reading = True
        pump(players, lambda: player.over, "the reset")


def play(players: list[Player], step: Step) -> None:
    player, peer = players[step.end], players[1 - step.end]
    if step.action == "sync":
        for one, other in (players, players[::-1]):
            hear_reset(players, one, other)
            pump(players, lambda one=one, other=other: settled(one, other), "all that was sent to arrive")
    if step.action in ("reset", "close"):
        hear_reset(players, player, peer)
    if player.over:
        return
    if step.action == "send" and not player.shut:
        player.to_send += step.size
        player.write()
    elif step.action == "urgent" and not player.shut:
        player.urgent_at.append(player.offset + player.to_send)
        player.to_send += 1
        player.write()
    elif step.action == "shut" and not player.shut:
        finish(players, player, peer)
    elif step.action in ("reset", "close") and not (player.shut and peer.shut):  # with both FINs sent there is nothing to reset
        if step.action == "reset":
            player.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        player.sock.close()
        player.gone = step.action
    elif step.action in ("pause", "resume"):
        player.reading = step.action == "resume"


def settled(player: Player, peer: Player) -> bool:
    """Whether the peer has what the player has sent, as far as it reads at all."""
    return player.over or peer.over or not peer.reading or (player.to_send == 0 and peer.received == player.offset)
