"""The whole relay with capture = "none" on loopback: no privilege, no rules. Most tests live here."""
