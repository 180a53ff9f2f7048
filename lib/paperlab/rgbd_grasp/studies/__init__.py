"""What the exhibits are made of.

From exhibits to files:

    material.py     generated scenes, samples and trained nets, kept by content in the cache
    methods.py      what takes a view to ranked grasps: oracle, nets, priors, methods without learning
    cases.py        a method under one setting, evaluated on test frames: the unit of every table of AP
    statistics.py   paired differences with scenes and seeds as units
    mechanism.py    labels, orientations, ceilings: what follows without learning
    robot.py        picks in simulation
    timing.py       seconds of search, evaluation and net
"""
