"""What the exhibits are made of.

From exhibits to files:

    cases.py        one trained net, quantized by one arm, tested: the unit of every accuracy table
    statistics.py   paired differences with the net as the unit, and McNemar's test within a net
    element.py      the theorems drawn and tabulated
    motivation.py   other roundings of activations than nearest: random borders, closed form, oracle
"""
