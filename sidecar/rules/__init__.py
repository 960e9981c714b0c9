"""The rules that bring connections to the listeners: a plan as data, small back ends, a transaction.

    model < choices selection < redirect tproxy < plan                what is captured, without a word of nft or iptables
    held < nft iptables < programs tables routes < backends           its spelling; what the kernel holds; the programs
    marks < change < keeper                                           from what is there to what is wanted, and back
    veth < trials; ends arrivals < attempts < probe                   connections of our own, to see that it works
    apply watch < status guard                                        what the commands do
    events < view < observe                                           what a running relay sees of its rules

Owns: everything that the kernel is told. Never here: code of its own; a rule that is not ours.
"""
