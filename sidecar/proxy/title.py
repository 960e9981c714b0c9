"""What ps and top show.

Owns: the process title and the main thread's name.
Never here: what the title says (relay).
"""


def show_title(title: str) -> None:
    """Show it in place of the command line; the thread keeps the short name, by which pgrep and `ss -p` find it."""
    import setproctitle  # eleven milliseconds (it imports logging): after the sockets are open

    setproctitle.setproctitle(title)
    setproctitle.setthreadtitle("relay-sidecar")
