"""The tables behind the exhibits: errors of the operators and retained bytes, swept."""
