"""The real thing: namespaces, rules, the relay as uid 1337, IPv4 and IPv6. Needs root."""
