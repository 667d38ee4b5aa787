"""What breaks, and what holds all the same: one program on Trio, a broker, and a fault.

`faults` is the list: a fault is a name, a ground that it happens on, what breaks it, the bound on
repeats, and why. `driver` runs one: a `program`, in a process of its own, publishes and handles
events on a `ground` (a broker, with proxies before it) while `deeds` break things; it writes down
what was acknowledged and, in the book, what was handled, and says at its end what it held, logged
and took. `checks` compares that with what was promised, and `page` writes it down.

`python -m tests.faults --help` runs them; the suite runs a short form of some.
"""
