"""The engine: phases, units, claims, deaths and requests, and nothing of what is computed.

A program declares its phases (`phase`).  Node Zero (`node`) begins them one by one (`runner`) and
obeys between them.  Spheres form a tree (`tree`, whose shape is `growth`'s care): a leaf claims
units, does them and hands over (`sphere`); a node with children (`member`) forks, watches and
buries these (`supervisor`), as Node Zero does its own.  The words that they share are in `board`;
the rules that these follow are in `crystalline.ipc`.
"""
