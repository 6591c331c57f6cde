"""How fast hadrosaur is, against bare Python that does only the necessary, and against its peers.

``python -m benchmarks`` (or ``make bench``) runs all parts, ``python -m benchmarks cached`` one. Absolute
times mean little: a disk differs by half from run to run. What counts is the ratio to the floor that was
measured in the same run, in turns with it.
"""
