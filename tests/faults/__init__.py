"""Everything that goes wrong on a network or on a machine, as a table, and what correct is then."""
