"""What the tests of the running relay are made of: places, networks, rules, relays, peers and bytes.

Read in this order: clock, netns, network, rules, relay, world. Nothing here knows a single test.
"""
