"""Other projects' parts on the same work, each in an environment that has it."""
