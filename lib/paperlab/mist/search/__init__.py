"""The tuner: search spaces, stages summarized as (t, d) fronts, the MILP over stages, and the outer loops (§2.9)."""
