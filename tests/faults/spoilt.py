"""A hundred ways to spoil a configuration file, and the word that the error must hold.

Owns: the list, which is the same in every run.
"""

from collections.abc import Iterator

# A line of the table [relay] that is wrong, and the key that the message must name.
WRONG_VALUES = (
    "1",
    "-1",
    "true",
    '"later"',
    '""',
    "[]",
    "{}",
    "1.5",
    '"1337; drop table"',
    "9223372036854775807",
)
KEYS = (
    "connect_timeout",
    "idle_timeout",
    "drain_timeout",
    "half_close_timeout",
    "keepalive_time",
    "keepalive_interval",
    "max_pending",
)
NEIGHBOURS = ("max_flow", "Workers", "timeout", "user_", "connect-timeout", "idle", "x", "half_close", "keepalive", "max_pipe")
BROKEN = (
    b"\xff\xfe",
    b"\0",
    b"[relay",
    b"= 1\n",
    b'a = "\n',
    b"[relay]\n[relay]\n",
    b"[[listener]]\n[listener]\n",
    b"[unheard_of]\nkey = 1\n",
    b"# \xff\n",
    b"a = 1\na = 2\n",
)
UNIVERSAL = b"# spoilt below\n"


def spoilt_files(good: bytes) -> Iterator[tuple[bytes, str]]:
    """Each spoilt file, and what its error must name: the key where there is one, else the file alone."""
    for key in KEYS:
        for value in WRONG_VALUES:
            yield good.replace(b"[relay]\n", f"[relay]\n{key} = {value}\n".encode()), key
    for key in NEIGHBOURS:
        yield good.replace(b"[relay]\n", f"[relay]\n{key} = 1\n".encode()), key
    for garbage in BROKEN:
        yield good + UNIVERSAL + garbage, ""
    for port in (-1, 65536, 15.0, 1 << 40, 0.5, '"80"', "true", "[]", '""', "{}"):
        yield good.replace(b"port = ", f"port = {port} #".encode()), "port"
