"""The same training work for simtune, TRL and AgileRL, a process each."""
