"""The engine: phases, units, claims, deaths and requests, and nothing of what is computed.

A program declares its phases (`phase`).  Node Zero (`node`) begins them one by one (`runner`) and
obeys between them; spheres, forked and watched by it (`crew`), claim their units, do them and
hand over (`sphere`).  The words that they share are in `board`; the rules that these follow are in
`crystalline.ipc`.
"""
