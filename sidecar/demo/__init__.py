"""The demo: a machine of its own, with real rules, a real relay and real traffic, that leaves nothing behind.

    machine < peers relay < scenes < screen < show      three hosts; who talks; the relay; what happens; how it is told

Owns: what `relay-sidecar demo` shows. Never here: code of its own; a way into the relay that users do not have.
"""
